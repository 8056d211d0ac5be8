/* The networks of a VM that stands by: the rehearsal's, then the instance's. */
#ifndef GEMEL_RELAY_STANDBYNET_H
#define GEMEL_RELAY_STANDBYNET_H

#include <stdbool.h>

struct relay;
struct launch;

enum { REHEARSAL_PORT = 7000 }; /* as in rehearsal.py */

/* The taps go into a network namespace of the relay's own, where someone listens to the guest. */
bool standbynet_open(struct relay *r);
/* The rehearsal is over: no packet goes to the guest, none is heard. */
void standbynet_quiet(struct relay *r);
/* Back to the host's networks, and the taps to the instance's: that goes on in a process of its
 * own, whose end standby_moved() is told of. */
bool standbynet_move(struct relay *r, const struct launch *next);

#endif
