/* The control group of the service's processes. */
#ifndef GEMEL_CGROUP_H
#define GEMEL_CGROUP_H

#include <stdbool.h>
#include <stddef.h>

#include "program.h"

#define SERVICE_GROUP "/sys/fs/cgroup/service"

bool cgroup_setup(void);
bool cgroup_renew(void); /* the empty group's, so that it has counted nothing yet */
bool cgroup_join(void); /* this process */

/* The group of programs that run beside a frozen service; what is left in it can be killed. */
bool cgroup_join_hook(void);
void cgroup_end_hook(void);

bool cgroup_limit(const struct program *program, char *error, size_t size);
bool cgroup_freeze(bool frozen);
bool cgroup_is_frozen(void);
bool cgroup_has_groups(void); /* that the service has made below its own */
void cgroup_signal(int number);
unsigned long cgroup_oom_kills(void);

/* Text of a USAGE answer; its length. */
size_t cgroup_usage(char *out, size_t size);

#endif
