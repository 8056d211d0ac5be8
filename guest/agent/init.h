/* The small init in front of a service's program. */
#ifndef GEMEL_INIT_H
#define GEMEL_INIT_H

#include <sys/types.h>

/* Passes signals on to `child`, reaps everything, and exits as the child did. */
void init_run(pid_t child) __attribute__((noreturn));

#endif
