/* Keeps the guest's clock at the host's. */
#ifndef GEMEL_RELAY_CLOCK_H
#define GEMEL_RELAY_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct relay;
struct frame;

/* Opens what tells of jumps of the host's clock; without it, it is looked at every minute. */
void clock_open(struct relay *r);
/* What it tells. */
void clock_jumped(struct relay *r);
/* Asks the guest for its time, while the service runs. */
void clock_ask(struct relay *r);
/* Its answer; false: it was not asked, or that is no answer. */
bool clock_answer(struct relay *r, const struct frame *f);
/* Asks it every minute. */
void clock_look(struct relay *r, int64_t now);

#endif
