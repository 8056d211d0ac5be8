/* A program to run, as START or EXEC asks for it. */
#ifndef GEMEL_PROGRAM_H
#define GEMEL_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "util.h"

#define RLIMITS_MAX 16

struct limit {
	int which;
	struct rlimit value;
};

struct program {
	struct list args, env, groups, masked, ropaths;
	char *cwd;
	char *user;
	bool tty, open_stdin, nnp, privileged, helper;
	bool debug; /* a program of the toolbox, as root beside the service */
	bool hook;  /* runs while the service stands still, in a control group of its own */
	bool held;  /* stopped before its first instruction */
	uint64_t disk; /* bytes of the toolbox's disk, which this session carries; 0: a program */
	uint16_t rows, columns;
	uint64_t caps;
	struct limit limits[RLIMITS_MAX];
	size_t limit_count;
	bool has_pids, has_memory, has_swap;
	uint64_t pids, memory, swap;
};

/* Reads a whole START or EXEC message. False: `error` says why; free it either way. */
bool program_parse(const uint8_t *data, size_t length, struct program *out, char *error,
		   size_t size);
void program_free(struct program *program);

/* The value of an environment variable, or NULL. */
const char *program_env(const struct program *program, const char *name);

#endif
