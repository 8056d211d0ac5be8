/* The rehearsal: a CONFIG and a START are carried out by a copy of this process, with mounts and a
 * host name of its own, and taken back. An emulator translates code of the guest's kernel when it
 * first runs, which is most of what a start takes; here it runs while nobody waits. Nothing may
 * be left: no mount, no address, no cache of the disks (they are others later), no count. */
#include "rehearse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "config.h"
#include "net.h"
#include "protocol.h"
#include "record.h"
#include "session.h"
#include "start.h"
#include "storage.h"

#define DEADLINE_MS 25000
#define DISKS_MS 5000
#define PEER_MS 1000

struct play {
	struct bytes config, start;
	struct sockaddr_in peer; /* outside, who takes connections; port 0: nobody */
};

/* A connection within the guest, which is reset, so that no port is taken by it afterwards. */
static bool talk(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	struct linger reset = {1, 0};
	char text[16];
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), other = -1;
	bool done = listener >= 0 && one >= 0 &&
		    bind(listener, (struct sockaddr *)&address, size) == 0 &&
		    listen(listener, 4) == 0 &&
		    getsockname(listener, (struct sockaddr *)&address, &size) == 0 &&
		    connect(one, (struct sockaddr *)&address, size) == 0 &&
		    (other = accept(listener, NULL, NULL)) >= 0 && write(one, "ask", 3) == 3 &&
		    read(other, text, sizeof text) == 3 && write(other, "answer", 6) == 6 &&
		    read(one, text, sizeof text) == 6;

	for (int i = 0; i < 2; i++) {
		int fd = i ? other : one;
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		close(fd);
	}
	close(listener);
	return done;
}

/* The same with the world outside, as far as it answers. */
static void talk_to(const struct sockaddr_in *peer)
{
	struct linger reset = {1, 0};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd wait = {fd, POLLOUT, 0};

	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)peer, sizeof *peer) == 0 ||
	    (errno == EINPROGRESS && poll(&wait, 1, PEER_MS) > 0)) {
		for (int i = 0; i < 3 && write(fd, "ask", 3) == 3; i++)
			usleep(2000);
	}
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(fd);
}

/* Starts the program as the service's first process is, and waits for its end. */
static bool perform(const struct play *play, char *error, size_t size)
{
	struct program program;
	struct session session = {.id = SESSION_SERVICE, .status = -1, .in = -1, .out = -1,
				  .err = -1};
	char text[1024];
	int master = -1, status = 0;
	struct pollfd wait = {.events = POLLIN};

	if (!program_parse(play->start.data, play->start.length, &program, error, size) ||
	    !start_program(&session, &program, error, size))
		return false;
	wait.fd = session.status;
	poll(&wait, 1, DEADLINE_MS);
	if (start_receive(session.status, text, sizeof text - 1, &master) > 0) {
		text[sizeof text - 1] = 0;
		snprintf(error, size, "%.200s", text + 1);
		return false;
	}
	start_keep_namespaces(session.pid);
	wait.fd = session.out;
	while (poll(&wait, 1, DEADLINE_MS) > 0 && read(session.out, text, sizeof text) > 0)
		;
	snprintf(error, size, "the program failed");
	return waitpid(session.pid, &status, 0) == session.pid && status == 0;
}

static _Noreturn void understudy(const struct play *play, int report)
{
	char error[512] = "";
	bool done = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		    mount("tmpfs", "/gemel", "tmpfs", 0, "mode=0755") == 0;

	if (!done)
		snprintf(error, sizeof error, "no mounts of its own");
	done = done && config_apply(play->config.data, play->config.length, error, sizeof error) &&
	       perform(play, error, sizeof error);
	if (done && !(done = talk()))
		snprintf(error, sizeof error, "no connection: %s", strerror(errno));
	if (done && play->peer.sin_port)
		talk_to(&play->peer);
	net_undo();
	storage_undo();
	umount2(LOWER, 0);
	_exit(done || write(report, error, strlen(error)) < 0 ? 0 : 1);
}

/* The last mount of a disk may go a moment later than the process that had it. Then it must be
 * read anew. */
static bool let_go(const char *disk)
{
	int64_t end = now_ms() + DISKS_MS;
	int fd;

	while ((fd = open(disk, O_RDONLY | O_EXCL | O_CLOEXEC)) < 0) {
		if (errno != EBUSY || now_ms() > end)
			return errno == ENOENT;
		usleep(2000);
	}
	ioctl(fd, BLKFLSBUF, 0);
	close(fd);
	return true;
}

/* Text of what went wrong, empty if nothing did. */
static void play_it(const struct play *play, char *error, size_t size)
{
	struct pollfd wait = {.events = POLLIN};
	int report[2];
	ssize_t got;
	pid_t pid;

	snprintf(error, size, "cannot start a process");
	if (pipe2(report, O_CLOEXEC) < 0)
		return;
	pid = (pid_t)syscall(SYS_clone, CLONE_NEWNS | CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		understudy(play, report[1]);
	close(report[1]);
	wait.fd = report[0];
	if (pid > 0) {
		*error = 0;
		if (poll(&wait, 1, DEADLINE_MS) <= 0)
			snprintf(error, size, "it takes too long");
		else if ((got = read(report[0], error, size - 1)) >= 0)
			error[got] = 0;
		cgroup_signal(SIGKILL);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	close(report[0]);
}

static void note_peer(const struct record *record, struct sockaddr_in *peer)
{
	char *address = record_text(record, 1);
	uint64_t port;

	peer->sin_family = AF_INET;
	if (address && inet_pton(AF_INET, address, &peer->sin_addr) == 1 &&
	    record_number(record, 2, 65535, &port))
		peer->sin_port = htons((uint16_t)port);
	free(address);
}

void rehearse(struct link *link, const uint8_t *data, size_t length)
{
	struct records all = {data, length};
	struct record record;
	struct play play = {.config = {NULL, 0}};
	char error[512] = "";
	int next;

	while (!*error && (next = record_next(&all, &record)) > 0) {
		if (record_is(&record, "config", 1))
			play.config = record.at[1];
		else if (record_is(&record, "start", 1))
			play.start = record.at[1];
		else if (record_is(&record, "peer", 2))
			note_peer(&record, &play.peer);
		else if (config_always(&record, error, sizeof error) > 0)
			*error = 0;
		else
			snprintf(error, sizeof error, "a record that is none");
	}
	if (!*error)
		play_it(&play, error, sizeof error);
	if (!*error && (!let_go("/dev/vda") || !let_go("/dev/vdb") || !cgroup_renew()))
		snprintf(error, sizeof error, "something is left: %s", strerror(errno));
	if (*error) {
		link_log(link, "the rehearsal failed: %s", error);
		link_drain(link, 1000);
		give_up("the rehearsal failed: %s", error);
	}
}
