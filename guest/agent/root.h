/* The service's root: what is mounted in it, and how a process gets into it. */
#ifndef GEMEL_ROOT_H
#define GEMEL_ROOT_H

#include <stdbool.h>
#include <stddef.h>

#include "program.h"

/* In a new mount (and pid, ipc, cgroup) namespace: mounts everything that CONFIG asked for and
 * makes it this process's root. False: `error` says why. */
bool root_enter(const struct program *program, char *error, size_t size);

/* Mounts /proc, /sys and /dev, and with `all` what CONFIG asked for, in the folder `base`. */
bool root_fill(const char *base, const struct program *program, bool all, char *error,
	       size_t size);

/* Whether the service's root has that path, as far as can be told without entering it. */
bool root_has(const char *path);

/* Makes the folder `base`, a mount, this process's root. */
bool root_pivot(const char *base, char *error, size_t size);

#endif
