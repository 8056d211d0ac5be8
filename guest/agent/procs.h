/* The service's processes, as docker top shows them. */
#ifndef GEMEL_PROCS_H
#define GEMEL_PROCS_H

#include <stdbool.h>
#include <stddef.h>

/* Text of a PROCESSES answer for all processes of the service's cgroup but the agent's own.
 * passwd: content of the image's file, or NULL. Caller frees; NULL for want of memory. */
char *procs_text(const char *passwd, size_t passwd_length, size_t *length);

#endif
