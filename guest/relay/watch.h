/* Changes that the host makes in folders which the guest is shown. Its kernel does not hear of
 * them: a virtiofs has no events. So the agent is told, and makes the events inside. */
#ifndef GEMEL_RELAY_WATCH_H
#define GEMEL_RELAY_WATCH_H

struct relay;

/* Starts to look, in a process of its own, if there is a share to look at. Failing is no harm. */
void watch_start(struct relay *r);
/* Tells the guest what has been found. */
void watch_read(struct relay *r);
void watch_end(struct relay *r);

#endif
