#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "debug.h"
#include "protocol.h"

#define PIPE_SIZE (256 << 10)

/* Ends of the three streams: [stream][0] the agent's, [1] the program's. */
struct streams {
	int at[3][2];
};

static void close_pair(int pair[2])
{
	for (int i = 0; i < 2; i++) {
		if (pair[i] >= 0)
			close(pair[i]);
		pair[i] = -1;
	}
}

/* One socket both ways: the disk's questions come out, the answers go in. */
static bool open_socket(struct streams *streams)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, streams->at[0]) < 0)
		return false;
	fcntl(streams->at[0][0], F_SETFL, O_NONBLOCK);
	return true;
}

static bool open_streams(const struct program *program, struct streams *streams)
{
	if (program->disk)
		return open_socket(streams);
	for (int i = 0; i < 3; i++) {
		int ends[2];

		if (program->tty || (i == 0 && !program->open_stdin))
			continue;
		if (pipe2(ends, O_CLOEXEC) < 0)
			return false;
		streams->at[i][0] = i == 0 ? ends[1] : ends[0];
		streams->at[i][1] = i == 0 ? ends[0] : ends[1];
		fcntl(streams->at[i][0], F_SETFL, O_NONBLOCK);
		if (i > 0) /* a busy program is not to wait for every 64 KiB; it may be refused */
			fcntl(streams->at[i][0], F_SETPIPE_SZ, PIPE_SIZE);
	}
	return true;
}

/* clone(2) as fork does it, with namespaces; this process has one thread only. */
static pid_t clone_child(unsigned long flags)
{
	return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

static pid_t make_process(const struct child *child)
{
	const bool joins = child->role == ROLE_JOIN || (child->role == ROLE_DEBUG && !child->alone);
	int own;
	pid_t pid;

	if (child->role == ROLE_DISK)
		return clone_child(0);
	if (!joins)
		return clone_child(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC);
	/* joining a pid namespace counts for children only, so this process goes there and back */
	own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if (own < 0 || setns(child->namespaces.pid, CLONE_NEWPID) < 0)
		pid = -1;
	else
		pid = clone_child(child->role == ROLE_DEBUG ? CLONE_NEWNS : 0);
	if (pid == 0)
		return 0;
	if (own >= 0 && setns(own, CLONE_NEWPID) < 0)
		give_up("cannot return to the first pid namespace");
	if (own >= 0)
		close(own);
	return pid;
}

/* Whether this may be started now, and how. */
static bool choose_role(uint32_t id, const struct program *program, enum role *role, char *error,
			size_t size)
{
	if (id == SESSION_SERVICE) {
		*role = ROLE_SERVICE;
		if (service.state == SERVICE_NOT_YET && !program->helper)
			return true;
		snprintf(error, size, "the service was started already");
		return false;
	}
	if (program->disk || program->debug) {
		*role = program->disk ? ROLE_DISK : ROLE_DEBUG;
		snprintf(error, size, "cannot make a control group");
		return debug_prepare();
	}
	*role = service.state == SERVICE_RUNS && service.namespaces.pid >= 0 ? ROLE_JOIN
									      : ROLE_ALONE;
	if (*role == ROLE_ALONE && !program->helper) {
		snprintf(error, size, "the service is not running");
		return false;
	}
	if (cgroup_is_frozen() && !program->hook) {
		snprintf(error, size, "the service is paused");
		return false;
	}
	return true;
}

static bool launch(struct session *session, struct child *child, struct streams *streams,
		   int status[2])
{
	for (int i = 0; i < 3; i++)
		child->stdio[i] = streams->at[i][1];
	child->status = status[1];
	session->pid = make_process(child);
	if (session->pid == 0)
		child_run(child);
	if (session->pid < 0)
		return false;
	session->status = status[0];
	session->in = streams->at[0][0];
	session->out = child->program->disk ? session->in : streams->at[1][0];
	session->err = streams->at[2][0];
	for (int i = 0; i < 3; i++)
		if (streams->at[i][1] >= 0)
			close(streams->at[i][1]);
	close(status[1]);
	return true;
}

bool start_program(struct session *session, const struct program *program, char *error,
		   size_t size)
{
	struct streams streams = {{{-1, -1}, {-1, -1}, {-1, -1}}};
	struct child child = {.program = program, .namespaces = service.namespaces, .busybox = -1};
	int status[2] = {-1, -1};
	bool done;

	if (!choose_role(session->id, program, &child.role, error, size))
		return false;
	child.alone = service.state != SERVICE_RUNS || service.namespaces.pid < 0;
	if (child.role == ROLE_SERVICE && !cgroup_limit(program, error, size))
		return false;
	if (program->helper)
		child.busybox = open("/.gemel/busybox", O_PATH | O_CLOEXEC);
	if (child.role == ROLE_SERVICE) {
		service.state = SERVICE_RUNS;
		service.oom_before = cgroup_oom_kills();
	}
	done = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) == 0 &&
	       open_streams(program, &streams) && launch(session, &child, &streams, status);
	if (!done) {
		snprintf(error, size, "cannot start a process: %s", strerror(errno));
		for (int i = 0; i < 3; i++)
			close_pair(streams.at[i]);
		close_pair(status);
		if (child.role == ROLE_SERVICE)
			service.state = SERVICE_NOT_YET;
	}
	if (child.busybox >= 0)
		close(child.busybox);
	return done;
}

ssize_t start_receive(int status, char *out, size_t size, int *master)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec data = {out, size};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof control};
	struct cmsghdr *head;
	ssize_t done = recvmsg(status, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (done <= 0)
		return done < 0 && errno == ECONNRESET ? 0 : done;
	head = CMSG_FIRSTHDR(&message);
	if (head && head->cmsg_type == SCM_RIGHTS) {
		memcpy(master, CMSG_DATA(head), sizeof *master);
		fcntl(*master, F_SETFL, O_NONBLOCK);
	}
	return done;
}

static int open_namespace(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void start_keep_namespaces(pid_t pid)
{
	service.namespaces.pid = open_namespace(pid, "pid");
	service.namespaces.mnt = open_namespace(pid, "mnt");
	service.namespaces.ipc = open_namespace(pid, "ipc");
	service.namespaces.cgroup = open_namespace(pid, "cgroup");
}

void start_drop_namespaces(void)
{
	int *const all[] = {&service.namespaces.pid, &service.namespaces.mnt,
			    &service.namespaces.ipc, &service.namespaces.cgroup};

	for (size_t i = 0; i < 4; i++) {
		if (*all[i] >= 0)
			close(*all[i]);
		*all[i] = -1;
	}
}
