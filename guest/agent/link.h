/* The port to the host: whole frames in, whole frames out, nothing blocks. */
#ifndef GEMEL_LINK_H
#define GEMEL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

/* Output of programs is not read while more than this waits to be sent. */
#define LINK_HIGH (192u << 10)
/* Bytes that the port's driver takes at once: a frame of this size goes out in one piece. */
#define LINK_WRITE 32768u

struct link;

/* Finds and opens the port, waiting for it at most `deadline_ms`. Ends the VM without one. */
struct link *link_open(const char *name, int deadline_ms);

int link_fd(const struct link *link);

/* What to poll for now: 0 while the host is not connected. */
short link_events(const struct link *link);

/* Tells what poll saw; false if the host broke the framing. Calls `take` for each frame. */
bool link_ready(struct link *link, short seen, void (*take)(const struct frame *frame));

void link_send(struct link *link, uint32_t session, uint8_t type, uint8_t flags, const void *data,
	       size_t length);

/* Sends without a copy: room for a payload of at most `length`, then what of it was filled. */
uint8_t *link_room(struct link *link, size_t length);
void link_commit(struct link *link, uint32_t session, uint8_t type, uint8_t flags, size_t length);

/* Hands to the port what it takes now. */
void link_flush(struct link *link);

void link_log(struct link *link, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool link_full(const struct link *link);
bool link_hung(const struct link *link);

/* Sends what waits, for at most so long; for the last words before power-off. */
void link_drain(struct link *link, int deadline_ms);

#endif
