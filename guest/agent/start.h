/* Makes the process of a session: pipes, namespaces, clone. */
#ifndef GEMEL_START_H
#define GEMEL_START_H

#include "session.h"

bool start_program(struct session *session, const struct program *program, char *error,
		   size_t size);

/* What the child says on its status socket: its length (0: it runs now), -1 for nothing yet.
 * A terminal's master comes with a message of its own. */
ssize_t start_receive(int status, char *out, size_t size, int *master);

void start_keep_namespaces(pid_t pid);
void start_drop_namespaces(void);

#endif
