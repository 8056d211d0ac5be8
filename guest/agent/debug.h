/* Debug sessions: a toolbox's file system from the host, and its programs beside the service. */
#ifndef GEMEL_DEBUG_H
#define GEMEL_DEBUG_H

#include <stdbool.h>
#include <stddef.h>

#include "program.h"

/* Makes the control group of such programs. */
bool debug_prepare(void);

/* In a child: serves a disk of `size` bytes whose content comes over the socket `fd`, until
 * that closes or a signal comes. `ready` is closed once it may be used. False: `error` says why. */
bool debug_serve_disk(int fd, int ready, uint64_t size, char *error, size_t length);

/* In a child with a mount namespace of its own: the toolbox becomes its root. `alone`: there is
 * no service, its files are at /service all the same. False: `error` says why. */
bool debug_enter(const struct program *program, bool alone, char *error, size_t size);

/* Kills what debug sessions have left. */
void debug_kill(void);

#endif
