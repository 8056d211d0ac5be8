/* Warm snapshots: a VM saved while its service runs, and the copies of it. */
#ifndef GEMEL_RELAY_WARM_H
#define GEMEL_RELAY_WARM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct relay;
struct client;

enum warm_step { WARM_IDLE, WARM_FREEZING, WARM_QUIET, WARM_SAVING, WARM_GOING, WARM_THAWING };

struct warm {
    /* Of the original: its snapshot, while it is taken. */
    enum warm_step step;
    int64_t deadline; /* of the step, in ms */
    struct client *client; /* who has asked for it; NULL: it has gone */
    int memory;       /* the guest's memory; -1: it cannot be saved */
    int to_memory, to_state, to_disk;
    int tries;
    char why[400];     /* what has gone wrong */
    bool holding;      /* what others tell the guest waits in `held` */
    struct queue held;
    /* Of a copy. */
    bool linking; /* it has its identity, and is being connected to its networks */
    bool hooking; /* the image's hook runs */
    bool thawed;  /* the service may run: there is no way back */
};

void warm_init(struct relay *r);
/* Forgets all of it; what waits goes to the guest. */
void warm_end(struct relay *r);

/* --- the original --- */

/* Someone asks for a snapshot. NULL: it is begun, the answer comes later; else why it is not. */
const char *warm_request(struct relay *r, struct client *c, const struct frame *f);
bool warm_frozen(struct relay *r, const struct frame *f);
bool warm_pong(struct relay *r, const struct frame *f);
/* Whether the VMM's line was about a snapshot, or comes from a VM that runs. */
bool warm_line(struct relay *r, const char *line);
/* Nothing becomes of a snapshot that is being taken: the service has ended. */
void warm_give_up(struct relay *r);
void warm_look(struct relay *r, int64_t now);

/* --- the copy --- */

bool warm_is_copy(const struct relay *r);
/* QMP commands that connect its networks, or cut them off; their length. */
size_t warm_links(const struct relay *r, bool on, char *text, size_t size);
/* It has its identity: connects its networks, then has the hook run and the service go on. */
void warm_connect(struct relay *r);
void warm_go(struct relay *r);
void warm_hook(struct relay *r, const struct frame *f);

#endif
