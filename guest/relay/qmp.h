/* The VMM's control channel (QMP): saving a template, and making a clone of one. */
#ifndef GEMEL_RELAY_QMP_H
#define GEMEL_RELAY_QMP_H

#include <stdbool.h>
#include <stddef.h>

struct relay;

/* Sends commands, with a descriptor beside the first byte. False: errno says why not. */
bool qmp_command(struct relay *r, const char *text, size_t n, int fd);

/* Has the VMM write its devices' state into the template's state file. */
bool qmp_save(struct relay *r);
/* Has the VMM, started to wait for it, take the template's state over and run. */
bool qmp_restore(struct relay *r);
/* Commands whose errors end the attempt; when all are done the guest is asked, or set up. */
void qmp_plug(struct relay *r, const char *commands);
/* Reads what the VMM answers; an error of it ends the attempt. */
void qmp_read(struct relay *r);
/* Closes the channel: from then on nobody commands the VMM. */
void qmp_close(struct relay *r);

#endif
