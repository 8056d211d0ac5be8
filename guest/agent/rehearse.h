/* A VM that stands by does once, in vain, what an instance's start will need. */
#ifndef GEMEL_REHEARSE_H
#define GEMEL_REHEARSE_H

#include <stddef.h>
#include <stdint.h>

#include "link.h"

/* Records `time`, `entropy`, then `config` and `start`: whole messages to rehearse with. Ends the
 * VM if it cannot be as it was before. */
void rehearse(struct link *link, const uint8_t *data, size_t length);

#endif
