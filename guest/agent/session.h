/* Running programs: their streams, windows and ends. */
#ifndef GEMEL_SESSION_H
#define GEMEL_SESSION_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "child.h"
#include "link.h"
#include "program.h"

struct session {
	struct session *next;
	uint32_t id;
	pid_t pid;
	int status;	    /* open until the program runs */
	int in, out, err;   /* the agent's ends, -1 when closed; out is a terminal's master */
	bool tty;	    /* in and out are one: a terminal, or a disk's socket */
	bool disk, debug, held, hook;
	bool started, exited;
	int exit_status;
	bool oom;
	int64_t exit_ms;
	size_t owed[2];	    /* bytes of out, err that were unread when the program ended */
	uint32_t credit;    /* output that may still be sent */
	uint8_t *input;	    /* WINDOW bytes, once there is any */
	size_t input_length;
	uint32_t unreturned; /* input consumed whose credit was not given back yet */
	bool input_ended;
	uint16_t rows, columns;
};

enum service_state { SERVICE_NOT_YET, SERVICE_RUNS, SERVICE_ENDED };

/* Of the service's first process. */
struct service {
	enum service_state state;
	struct namespaces namespaces;
	unsigned long oom_before;
};

extern struct service service;

struct session *session_find(uint32_t id);

/* Starts a program, or sends ERROR. */
void session_start(struct link *link, uint32_t id, const struct program *program);

void session_input(struct link *link, struct session *session, const uint8_t *data, size_t length);
void session_end_input(struct session *session);
void session_resize(struct session *session, uint16_t rows, uint16_t columns);
void session_signal(struct session *session, int number);
void session_close(struct session *session);

/* Of a guest that has become a copy of another: the service's windows are whole again and its
 * standard input has ended; all other sessions were the original's, and end. */
void sessions_adopt(void);

/* Adds what to poll for; returns how many were added (at most `room`). */
size_t sessions_poll(const struct link *link, struct pollfd *fds, size_t room);

/* Does what poll found to be possible, and finishes what has ended. */
void sessions_ready(struct link *link, const struct pollfd *fds, size_t count);

/* Collects ended processes. */
void sessions_reap(void);

/* Milliseconds until a session must be looked at without an event; -1: never. */
int sessions_timeout(void);

void session_error(struct link *link, uint32_t id, int kind, const char *text);

#endif
