/* Starting the VMM in a jail, and the processes that show it folders of the host. */
#ifndef GEMEL_RELAY_CHILD_H
#define GEMEL_RELAY_CHILD_H

#include <stddef.h>
#include <sys/types.h>

#include "launch.h"

enum { MAX_PLACED = MAX_DISKS + MAX_TAPS + MAX_SHARES + 4 };

struct placed { int from, to; }; /* a descriptor, and its number in the child */

/* Starts QEMU as the unprivileged user in namespaces of its own, where it sees /usr, the bound
 * files and its descriptors, and nothing else. -1: *why says what failed. */
pid_t start_vmm(const struct launch *launch, const struct placed *fds, size_t n, int error_fd,
                char *why, size_t why_size);

/* Starts the file server of one share; listener becomes its descriptor 3. */
pid_t start_share(const struct launch *launch, size_t index, int listener, int error_fd,
                  char *why, size_t why_size);

#endif
