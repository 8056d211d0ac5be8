/* What a new process does between clone and exec. */
#ifndef GEMEL_CHILD_H
#define GEMEL_CHILD_H

#include "program.h"

/* Descriptors of the service's namespaces, -1 before START. */
struct namespaces {
	int pid, mnt, ipc, cgroup;
};

enum role {
	ROLE_SERVICE, /* made with new namespaces: builds the root */
	ROLE_JOIN,    /* joins the service's */
	ROLE_DEBUG,   /* of the toolbox, beside the service or (`alone`) its files */
	ROLE_DISK,    /* carries the toolbox's disk */
	ROLE_ALONE,   /* a helper without a service: as ROLE_SERVICE, with nothing but files */
};

struct child {
	const struct program *program;
	enum role role;
	bool alone; /* there is no service */
	struct namespaces namespaces;
	int status; /* SEQPACKET: errors (kind, text) or the terminal's descriptor; closed by exec */
	int stdio[3]; /* -1: /dev/null, or the terminal */
	int busybox;
};

void child_run(const struct child *child) __attribute__((noreturn));

#endif
