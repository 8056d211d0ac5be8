#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "debug.h"
#include "protocol.h"
#include "root.h"
#include "start.h"

#define READ_SIZE (LINK_WRITE - FRAME_HEADER)
#define READS 8 /* of one stream in a turn */
#define RETURN_AT 65536u /* credit is given back in lumps of at least this */
#define LINGER_MS 1000

struct service service = {.namespaces = {-1, -1, -1, -1}};

static struct session *sessions;

struct session *session_find(uint32_t id)
{
	struct session *at = sessions;

	while (at && at->id != id)
		at = at->next;
	return at;
}

void session_error(struct link *link, uint32_t id, int kind, const char *text)
{
	char payload[1024];
	size_t length = strlen(text);

	if (length > sizeof payload - 1)
		length = sizeof payload - 1;

	payload[0] = (char)kind;
	memcpy(payload + 1, text, length);
	link_send(link, id, G_ERROR, 0, payload, length + 1);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void forget(struct session *session)
{
	struct session **at = &sessions;

	while (*at && *at != session)
		at = &(*at)->next;
	if (*at)
		*at = session->next;
	if (session->in == session->out)
		session->in = -1;
	close_fd(&session->status);
	close_fd(&session->in);
	close_fd(&session->out);
	close_fd(&session->err);
	free(session->input);
	free(session);
}

void session_start(struct link *link, uint32_t id, const struct program *program)
{
	struct session *session = must_alloc(sizeof *session);
	char error[512] = "";

	if (program->hook && program->args.count > 0 && *program->args.at[0] == '/' &&
	    !root_has(program->args.at[0])) { /* most images have none: no process for that */
		session_error(link, id, ERROR_NOT_FOUND, "no such file or directory");
		free(session);
		return;
	}
	session->id = id;
	session->credit = WINDOW;
	session->tty = program->tty || program->disk;
	session->disk = program->disk != 0;
	session->debug = program->debug;
	session->hook = program->hook;
	session->held = program->held && id == SESSION_SERVICE;
	session->status = session->in = session->out = session->err = -1;
	session->next = sessions;
	sessions = session;
	if (!start_program(session, program, error, sizeof error)) {
		session_error(link, id, ERROR_FAILED, error);
		forget(session);
	}
}

static void return_credit(struct link *link, struct session *session, size_t consumed)
{
	uint8_t payload[4];

	session->unreturned += (uint32_t)consumed;
	if (session->unreturned < RETURN_AT)
		return;
	put_u32(payload, session->unreturned);
	session->unreturned = 0;
	link_send(link, session->id, G_CREDIT, 0, payload, sizeof payload);
}

/* Hands waiting input to the program as far as it takes it. */
static void feed(struct link *link, struct session *session)
{
	size_t done = 0;

	while (session->in >= 0 && done < session->input_length) {
		ssize_t wrote = write(session->in, session->input + done,
				      session->input_length - done);
		if (wrote < 0 && errno == EAGAIN)
			break;
		if (wrote < 0 && session->in != session->out)
			close_fd(&session->in); /* it reads no more */
		else if (wrote < 0)
			session->in = -1;
		else
			done += (size_t)wrote;
	}
	if (session->in < 0 && session->started)
		done = session->input_length; /* nobody will ever read it */
	if (done) {
		memmove(session->input, session->input + done, session->input_length - done);
		session->input_length -= done;
		return_credit(link, session, done);
	}
	if (session->input_ended && session->input_length == 0 && !session->tty)
		close_fd(&session->in);
}

void session_input(struct link *link, struct session *session, const uint8_t *data, size_t length)
{
	if (session->input_ended)
		return;
	if (length > WINDOW - session->unreturned - session->input_length) {
		link_log(link, "session %u: more input than its credit", session->id);
		return;
	}
	if (!session->input)
		session->input = must_alloc(WINDOW);
	memcpy(session->input + session->input_length, data, length);
	session->input_length += length;
	feed(link, session);
}

void session_end_input(struct session *session)
{
	session->input_ended = true;
	if (session->disk && session->in >= 0)
		shutdown(session->in, SHUT_RDWR); /* nobody answers any more */
	if (session->input_length == 0 && !session->tty)
		close_fd(&session->in);
}

void session_resize(struct session *session, uint16_t rows, uint16_t columns)
{
	struct winsize size = {.ws_row = rows, .ws_col = columns};

	session->rows = rows;
	session->columns = columns;
	if (session->tty && !session->disk && session->out >= 0)
		ioctl(session->out, TIOCSWINSZ, &size);
}

void session_signal(struct session *session, int number)
{
	if (!session->exited && number > 0 && number <= 64)
		kill(session->pid, number);
}

void session_close(struct session *session)
{
	session_signal(session, SIGHUP);
	forget(session);
}

void sessions_adopt(void)
{
	struct session *next;

	for (struct session *at = sessions; at; at = next) {
		next = at->next;
		if (at->id != SESSION_SERVICE) {
			session_signal(at, SIGKILL);
			forget(at);
			continue;
		}
		at->credit = WINDOW;
		at->unreturned = 0;
		at->input_length = 0;
		session_end_input(at);
	}
}

static size_t add(struct pollfd *fds, size_t count, size_t room, int fd, short events)
{
	if (fd < 0 || count == room)
		return count;
	fds[count] = (struct pollfd){fd, events, 0};
	return count + 1;
}

/* Sessions take turns at the front, so that none is starved when the link is nearly full. */
static void rotate(void)
{
	struct session *first = sessions, *last = sessions;

	if (!first || !first->next)
		return;
	while (last->next)
		last = last->next;
	sessions = first->next;
	last->next = first;
	first->next = NULL;
}

size_t sessions_poll(const struct link *link, struct pollfd *fds, size_t room)
{
	size_t count = 0;

	rotate();
	for (struct session *at = sessions; at; at = at->next) {
		bool reads = at->started && at->credit > 0 && !link_full(link);
		short out = reads ? POLLIN : 0;

		count = add(fds, count, room, at->status, POLLIN);
		if (at->started && at->in >= 0 && at->in != at->out)
			count = add(fds, count, room, at->in, at->input_length ? POLLOUT : 0);
		else if (at->started && at->in >= 0 && at->input_length)
			out |= POLLOUT;
		if (out)
			count = add(fds, count, room, at->out, out);
		if (reads)
			count = add(fds, count, room, at->err, POLLIN);
	}
	return count;
}

static short seen(const struct pollfd *fds, size_t count, int fd)
{
	for (size_t i = 0; fd >= 0 && i < count; i++)
		if (fds[i].fd == fd)
			return fds[i].revents;
	return 0;
}

/* Sends on some of what a program wrote; true if there may be more. */
static bool forward_some(struct link *link, struct session *session, int *fd, uint8_t type,
			 size_t *owed)
{
	size_t most = session->credit < READ_SIZE ? session->credit : READ_SIZE;
	ssize_t done;

	if (most == 0 || link_full(link))
		return false;
	done = read(*fd, link_room(link, most), most);
	if (done < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (done <= 0) { /* EIO: the last one let go of a terminal */
		if (session->in == *fd)
			session->in = -1;
		close_fd(fd);
		return false;
	}
	session->credit -= (uint32_t)done;
	*owed -= *owed < (size_t)done ? *owed : (size_t)done;
	link_commit(link, session->id, type, 0, (size_t)done);
	return (size_t)done == READ_SIZE;
}

/* Sends on what a program wrote, much of it in pieces that the port takes at once. */
static void forward(struct link *link, struct session *session, int *fd, uint8_t type,
		    size_t *owed)
{
	for (int i = 0; i < READS && forward_some(link, session, fd, type, owed); i++)
		if (!link_hung(link))
			link_flush(link);
}

/* True if the session is over. */
static bool finish_start(struct link *link, struct session *session)
{
	char message[1024];
	int master = -1;
	ssize_t done = start_receive(session->status, message, sizeof message, &master);
	uint8_t pid[4];

	if (done < 0)
		return false;
	if (master >= 0) {
		session->out = session->in = master;
		if (session->rows || session->columns)
			session_resize(session, session->rows, session->columns);
		return false;
	}
	if (done > 0) {
		link_send(link, session->id, G_ERROR, 0, message, (size_t)done);
		if (session->id == SESSION_SERVICE)
			service.state = SERVICE_NOT_YET;
		return true;
	}
	close_fd(&session->status);
	session->started = true;
	if (session->id == SESSION_SERVICE)
		start_keep_namespaces(session->pid);
	put_u32(pid, (uint32_t)session->pid);
	link_send(link, session->id, G_STARTED, 0, pid, sizeof pid);
	feed(link, session);
	return false;
}

static bool is_over(const struct session *session)
{
	if (!session->started || !session->exited)
		return false;
	if (session->out < 0 && session->err < 0)
		return true;
	return session->owed[0] == 0 && session->owed[1] == 0 &&
	       now_ms() - session->exit_ms >= LINGER_MS;
}

static void finish(struct link *link, struct session *session)
{
	uint8_t payload[5];

	put_u32(payload, (uint32_t)session->exit_status);
	payload[4] = session->oom;
	link_send(link, session->id, G_EXIT, 0, payload, sizeof payload);
	forget(session);
}

static void serve(struct link *link, struct session *session, const struct pollfd *fds,
		  size_t count)
{
	short in = session->in != session->out ? seen(fds, count, session->in) : 0;
	short out = seen(fds, count, session->out), err = seen(fds, count, session->err);

	if (seen(fds, count, session->status) && finish_start(link, session)) {
		forget(session);
		return;
	}
	if ((in & POLLERR) && !session->tty)
		close_fd(&session->in);
	if ((in | out) & (POLLOUT | POLLERR))
		feed(link, session);
	if (out & (POLLIN | POLLHUP | POLLERR))
		forward(link, session, &session->out, G_STDOUT, &session->owed[0]);
	if (err & (POLLIN | POLLHUP | POLLERR))
		forward(link, session, &session->err, G_STDERR, &session->owed[1]);
	if (is_over(session))
		finish(link, session);
}

void sessions_ready(struct link *link, const struct pollfd *fds, size_t count)
{
	struct session *next;

	for (struct session *at = sessions; at; at = next) {
		next = at->next;
		serve(link, at, fds, count);
	}
}

static size_t unread(int fd)
{
	int bytes = 0;

	return fd >= 0 && ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

/* Whether there is a debug session beside `but`. */
static bool debugging(const struct session *but)
{
	for (struct session *at = sessions; at; at = at->next)
		if (at->debug && at != but && !at->exited)
			return true;
	return false;
}

/* A program that was to be held has been loaded: it is let go of, stopped. */
static void note_stop(struct session *session)
{
	if (session->held) {
		kill(session->pid, SIGSTOP);
		ptrace(PTRACE_DETACH, session->pid, NULL, NULL);
	}
	session->held = false;
}

static void note_end(struct session *session, int status)
{
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	session->exited = true;
	session->exit_ms = now_ms();
	session->exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	session->owed[0] = unread(session->out);
	session->owed[1] = unread(session->err);
	session->oom = (session->id == SESSION_SERVICE || killed) &&
		       cgroup_oom_kills() > service.oom_before;
	if (session->debug && !debugging(session))
		debug_kill();
	if (session->hook)
		cgroup_end_hook();
	if (session->id == SESSION_SERVICE) {
		start_drop_namespaces();
		cgroup_signal(SIGKILL);
		service.state = SERVICE_ENDED;
	}
}

void sessions_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (struct session *at = sessions; at; at = at->next)
			if (at->pid == pid && !at->exited) {
				if (WIFSTOPPED(status))
					note_stop(at);
				else
					note_end(at, status);
				break;
			}
}

int sessions_timeout(void)
{
	int least = -1;

	for (struct session *at = sessions; at; at = at->next) {
		int64_t left;
		if (!at->exited || !at->started)
			continue;
		left = at->exit_ms + LINGER_MS - now_ms();
		/* past its time it only waits for the reader, whose CREDIT is an event */
		if (is_over(at))
			return 0;
		if (left > 0 && (least < 0 || left < least))
			least = (int)left;
	}
	return least;
}
