/* Makes a machine of its own of a guest that is a copy of one that runs. The service's processes
 * are frozen meanwhile, so none of them sees anything half-done, and the host lets no packet in or out. */
#include "identity.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "config.h"
#include "net.h"
#include "record.h"
#include "session.h"

#define QUEUED_MAX 65536 /* connections that nobody has accepted yet, of one listener */

/* Calls `visit` with a copy of each socket that the process has. */
static void sockets_of(pid_t pid, void (*visit)(int fd))
{
	char path[64], target[64];
	struct dirent *entry;
	int process = (int)syscall(SYS_pidfd_open, pid, 0);
	DIR *folder;

	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	folder = process < 0 ? NULL : opendir(path);
	while (folder && (entry = readdir(folder))) {
		ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target);
		int fd;
		if (length < 8 || strncmp(target, "socket:[", 8) != 0)
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, process, atoi(entry->d_name), 0);
		if (fd < 0)
			continue;
		visit(fd);
		close(fd);
	}
	if (folder)
		closedir(folder);
	if (process >= 0)
		close(process);
}

static void each_socket_of_all(void (*visit)(int fd))
{
	struct dirent *entry;
	DIR *folder = opendir("/proc");

	while (folder && (entry = readdir(folder))) {
		pid_t pid = isdigit((unsigned char)*entry->d_name) ? atoi(entry->d_name) : 0;
		if (pid > 0 && pid != getpid())
			sockets_of(pid, visit);
	}
	if (folder)
		closedir(folder);
}

/* Of the service's processes: those of its control group. One that has made groups below may have
 * any process in them, so all there are are looked at. */
static void each_socket(void (*visit)(int fd))
{
	static char pids[65536];
	long length = cgroup_has_groups() ? -1 : get_file(SERVICE_GROUP "/cgroup.procs", pids,
							  sizeof pids);
	char *at = pids, *end;

	if (length <= 0 || length >= (long)sizeof pids - 1) {
		each_socket_of_all(visit);
		return;
	}
	for (long pid; (pid = strtol(at, &end, 10)) > 0 && end != at; at = end)
		sockets_of((pid_t)pid, visit);
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t length = sizeof value;

	return getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

static bool is_internet(int fd, int type)
{
	int family = option(fd, SO_DOMAIN);

	return (family == AF_INET || family == AF_INET6) && option(fd, SO_TYPE) == type;
}

/* Whether it is connected to something that is not the guest itself; *peer is that. */
static bool leads_out(int fd, struct sockaddr_storage *peer, socklen_t *length)
{
	const struct sockaddr_in *four = (const struct sockaddr_in *)peer;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)peer;

	*length = sizeof *peer;
	errno = 0;
	if (getpeername(fd, (struct sockaddr *)peer, length) != 0)
		return false;
	if (peer->ss_family == AF_INET)
		return ntohl(four->sin_addr.s_addr) >> 24 != 127;
	if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		return six->sin6_addr.s6_addr[12] != 127;
	return !IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

/* Whoever has it finds it reset. Does nothing to one that is not connected. */
static void reset(int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	if (connect(fd, &none, sizeof none) != 0)
		shutdown(fd, SHUT_RDWR);
}

/* What was connected and nobody has taken: the other end is the original's. */
static void empty_queue(int listener)
{
	struct pollfd ready = {listener, POLLIN, 0};
	int left = QUEUED_MAX;

	while (left-- > 0 && poll(&ready, 1, 0) > 0 && (ready.revents & POLLIN)) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			return;
		reset(fd);
		close(fd);
	}
}

static bool datagrams; /* there is one that is to be connected again */

static void drop_connection(int fd)
{
	struct sockaddr_storage peer;
	socklen_t length;

	if (!is_internet(fd, SOCK_STREAM)) {
		datagrams |= is_internet(fd, SOCK_DGRAM);
		return;
	}
	if (option(fd, SO_ACCEPTCONN) == 1)
		empty_queue(fd);
	else if (leads_out(fd, &peer, &length) || errno == ENOTCONN)
		reset(fd); /* without a peer it may be about to be connected */
}

/* A connected datagram socket has the source address that was right when it was connected. */
static void connect_again(int fd)
{
	struct sockaddr_storage peer;
	socklen_t length;

	if (!is_internet(fd, SOCK_DGRAM) || !leads_out(fd, &peer, &length))
		return;
	reset(fd);
	connect(fd, (const struct sockaddr *)&peer, length);
}

static bool apply(const struct record *record, char *error, size_t size)
{
	int done = config_always(record, error, size);

	if (done >= 0)
		return done;
	if (record_is(record, "machine-id", 1))
		return config_machine_id(record);
	if (record_is(record, "nic", 6))
		return config_nic(record, net_readdress, error, size);
	return false;
}

bool identity_apply(const uint8_t *data, size_t length, char *error, size_t size)
{
	struct records all = {data, length};
	struct record record;
	int next;

	if (!config.ready || service.state != SERVICE_RUNS || !cgroup_is_frozen()) {
		snprintf(error, size, "there is no service that stands still");
		return false;
	}
	sessions_adopt();
	each_socket(drop_connection);
	while ((next = record_next(&all, &record)) > 0) {
		snprintf(error, size, "a record of IDENTITY that is none: %.*s",
			 (int)(record.at[0].length > 40 ? 40 : record.at[0].length),
			 (const char *)record.at[0].data);
		if (!apply(&record, error, size))
			return false;
	}
	if (next < 0)
		snprintf(error, size, "an IDENTITY that is cut short");
	else if (datagrams)
		each_socket(connect_again);
	return next == 0;
}
