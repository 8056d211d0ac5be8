/* Capabilities: names to bits, and giving up all others. */
#ifndef GEMEL_CAPS_H
#define GEMEL_CAPS_H

#include <stdbool.h>
#include <stdint.h>

/* The bit of CAP_NAME (with or without the prefix, any case); false if there is none. */
bool cap_bit(const char *name, uint64_t *bit);

/* All that this kernel has. */
uint64_t cap_all(void);

/* Drops all others from the bounding set. 0 or -1 with errno. */
int cap_bound(uint64_t allowed);

/* Sets permitted and effective to `allowed`, inheritable and ambient to nothing. */
int cap_set(uint64_t allowed);

#endif
