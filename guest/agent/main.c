/* The guest's PID 1: does what the host says over the port (docs/guest-protocol.md). */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"
#include "cgroup.h"
#include "config.h"
#include "identity.h"
#include "link.h"
#include "net.h"
#include "procs.h"
#include "protocol.h"
#include "rehearse.h"
#include "session.h"
#include "storage.h"
#include "touch.h"

#define PORT_DEADLINE_MS 20000
#define FREEZE_DEADLINE_MS 10000
#define POLLS_MAX 4096

static struct link *host;
static int64_t freezing_until; /* 0: no FREEZE waits for its end */

/* The message that is being put together from its frames. */
static struct {
	uint32_t session;
	uint8_t type;
	uint8_t *data;
	size_t length;
} message;

static void power_off(void)
{
	int64_t end = now_ms() + 3000;
	char procs[64];

	cgroup_signal(SIGKILL);
	cgroup_freeze(false);
	while (now_ms() < end && get_file(SERVICE_GROUP "/cgroup.procs", procs, sizeof procs) > 0) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(2000);
	}
	storage_undo();
	sync();
	link_send(host, SESSION_CONTROL, G_OFF, 0, NULL, 0);
	link_drain(host, 1000);
	reboot(RB_POWER_OFF);
	give_up("power-off failed");
}

static void take_message(void)
{
	char error[512] = "";
	struct program program;

	if (message.type == H_CONFIG || message.type == H_IDENTITY) {
		if ((message.type == H_CONFIG ? config_apply : identity_apply)(
			    message.data, message.length, error, sizeof error))
			link_send(host, SESSION_CONTROL, G_READY, 0, NULL, 0);
		else
			session_error(host, SESSION_CONTROL, ERROR_FAILED, error);
		return;
	}
	if (!config.ready)
		session_error(host, message.session, ERROR_FAILED, "not configured yet");
	else if (session_find(message.session))
		session_error(host, message.session, ERROR_FAILED, "the session exists");
	else if (!program_parse(message.data, message.length, &program, error, sizeof error)) {
		session_error(host, message.session, ERROR_FAILED, error);
		program_free(&program);
	} else {
		session_start(host, message.session, &program);
		program_free(&program);
	}
}

static bool right_session(const struct frame *frame)
{
	if (frame->type == H_CONFIG || frame->type == H_IDENTITY)
		return frame->session == SESSION_CONTROL;
	if (frame->type == H_START)
		return frame->session == SESSION_SERVICE;
	return frame->session > SESSION_SERVICE;
}

/* Adds a frame of CONFIG, START or EXEC to its message; acts on the last one. */
static void take_part(const struct frame *frame)
{
	uint8_t *grown;

	if (message.length == 0) {
		message.session = frame->session;
		message.type = frame->type;
	}
	if (!right_session(frame) || message.session != frame->session ||
	    message.type != frame->type || message.length + frame->length > MESSAGE_MAX)
		give_up("the host broke the protocol: a message of type %u", frame->type);
	grown = realloc(message.data, message.length + frame->length + 1);
	if (!grown)
		give_up("out of memory");
	message.data = grown;
	memcpy(message.data + message.length, frame->payload, frame->length);
	message.length += frame->length;
	if (frame->flags & FLAG_LAST) {
		take_message();
		message.length = 0;
		free(message.data);
		message.data = NULL;
	}
}

static void answer_usage(void)
{
	static char text[16384];

	link_send(host, SESSION_CONTROL, G_USAGE, 0, text, cgroup_usage(text, sizeof text));
}

static void answer_processes(void)
{
	size_t length = 0, passwd_length, at = 0;
	char *passwd = get_whole(ROOT "/etc/passwd", 1 << 20, &passwd_length);
	char *text = procs_text(passwd, passwd_length, &length);

	do {
		size_t part = length - at > FRAME_PAYLOAD_MAX ? FRAME_PAYLOAD_MAX : length - at;
		bool last = at + part == length;
		link_send(host, SESSION_CONTROL, G_PROCESSES, last ? FLAG_LAST : 0,
			  text ? text + at : NULL, part);
		at += part;
	} while (at < length);
	free(text);
	free(passwd);
}

static void answer_clock(void)
{
	struct timespec now;
	uint64_t ns;
	uint8_t payload[sizeof ns];

	clock_gettime(CLOCK_REALTIME, &now);
	ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	for (size_t i = 0; i < sizeof payload; i++)
		payload[i] = (uint8_t)(ns >> 8 * i);
	link_send(host, SESSION_CONTROL, G_CLOCK, 0, payload, sizeof payload);
}

static void answer_frozen(bool frozen)
{
	uint8_t state = frozen;

	freezing_until = 0;
	link_send(host, SESSION_CONTROL, G_FROZEN, 0, &state, 1);
}

/* FREEZE is answered once every process stands still. */
static void check_freezing(void)
{
	if (freezing_until && cgroup_is_frozen())
		answer_frozen(true);
	else if (freezing_until && now_ms() > freezing_until) {
		cgroup_freeze(false);
		answer_frozen(false);
	}
}

static void take_control(const struct frame *frame)
{
	char ignored[128];

	switch (frame->type) {
	case H_SHUTDOWN:
		power_off();
		break;
	case H_PING:
		link_send(host, SESSION_CONTROL, G_PONG, 0, frame->payload,
			  frame->length > PING_MAX ? PING_MAX : frame->length);
		break;
	case H_PREPARE:
		/* clones of this guest may have shares, whatever it has itself; all have a loopback */
		load_modules("virtiofs");
		net_loopback(ignored, sizeof ignored);
		break;
	case H_REHEARSE:
		rehearse(host, frame->payload, frame->length);
		break;
	case H_CHANGED:
		touch_changed(frame->payload, frame->length);
		break;
	case H_CLOCK:
		answer_clock();
		break;
	case H_USAGE:
		answer_usage();
		break;
	case H_PROCESSES:
		answer_processes();
		break;
	case H_FREEZE:
		if (cgroup_freeze(true))
			freezing_until = now_ms() + FREEZE_DEADLINE_MS;
		else
			answer_frozen(false);
		break;
	case H_THAW:
		cgroup_freeze(false);
		answer_frozen(false);
		link_flush(host);
		net_settle();
		break;
	default:
		link_log(host, "a frame of unknown type %u", frame->type);
	}
}

static void take_signal(struct session *session, const struct frame *frame)
{
	int number = frame->length == 4 ? (int)get_u32(frame->payload) : 0;

	if (frame->flags & FLAG_ALL)
		cgroup_signal(number);
	else if (session)
		session_signal(session, number);
}

static void take_for_session(struct session *session, const struct frame *frame)
{
	switch (frame->type) {
	case H_STDIN:
		session_input(host, session, frame->payload, frame->length);
		break;
	case H_STDIN_EOF:
		session_end_input(session);
		break;
	case H_RESIZE:
		if (frame->length == 4)
			session_resize(session, get_u16(frame->payload),
				       get_u16(frame->payload + 2));
		break;
	case H_CREDIT:
		if (frame->length != 4 || !credit_add(&session->credit, get_u32(frame->payload)))
			link_log(host, "session %u: a CREDIT that is none", session->id);
		break;
	case H_CLOSE:
		if (session->id != SESSION_SERVICE)
			session_close(session);
		break;
	}
}

static void take(const struct frame *frame)
{
	struct session *session;

	if ((frame->type >= H_CONFIG && frame->type <= H_EXEC) || frame->type == H_IDENTITY) {
		take_part(frame);
		return;
	}
	session = frame->session == SESSION_CONTROL ? NULL : session_find(frame->session);
	if (frame->type == H_SIGNAL)
		take_signal(session, frame);
	else if (frame->session == SESSION_CONTROL)
		take_control(frame);
	else if (session)
		take_for_session(session, frame);
}

static void say_hello(void)
{
	struct utsname about;
	uint8_t payload[4 + sizeof about.release];

	uname(&about);
	put_u32(payload, PROTOCOL_VERSION);
	memcpy(payload + 4, about.release, strlen(about.release));
	link_send(host, SESSION_CONTROL, G_HELLO, 0, payload, 4 + strlen(about.release));
}

static int timeout(void)
{
	int least = sessions_timeout();

	if (link_hung(host) && (least < 0 || least > 20))
		least = 20; /* the port does not tell when the host is back */
	if (freezing_until && (least < 0 || least > 2))
		least = 2;
	return least;
}

static int open_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGABRT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What a program writes is to gather in its pipe: woken by each write, the agent does not take
 * the only CPU from the writer, but waits for its turn. Programs that it starts are not so. */
static void wait_for_writers(void)
{
	struct sched_param none = {0};

	sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none);
}

int main(void)
{
	static struct pollfd fds[POLLS_MAX];
	struct signalfd_siginfo about;
	int64_t begun = now_ms(), booted;
	int signals;

	if (getpid() != 1) {
		fputs("this is the init of gemel's micro VMs\n", stderr);
		return 2;
	}
	boot();
	booted = now_ms();
	signals = open_signals();
	host = link_open(PORT_NAME, PORT_DEADLINE_MS);
	wait_for_writers();
	say_hello();
	link_log(host, "boot: kernel %lld ms, modules %lld ms, port %lld ms", (long long)begun,
		 (long long)(booted - begun), (long long)(now_ms() - booted));
	for (;;) {
		size_t count;

		fds[0] = (struct pollfd){link_fd(host), link_events(host), 0};
		fds[1] = (struct pollfd){signals, POLLIN, 0};
		if (link_hung(host))
			fds[0].fd = -1;
		count = 2 + sessions_poll(host, fds + 2, POLLS_MAX - 2);
		if (poll(fds, count, timeout()) < 0 && errno != EINTR)
			give_up("poll: %s", strerror(errno));
		if (link_hung(host)) {
			fds[0] = (struct pollfd){link_fd(host), POLLIN | POLLOUT, 0};
			poll(fds, 1, 0);
		}
		while (read(signals, &about, sizeof about) > 0)
			;
		sessions_reap();
		if (!link_ready(host, fds[0].revents, take))
			give_up("the host broke the protocol");
		sessions_ready(host, fds + 2, count - 2);
		check_freezing();
	}
}
