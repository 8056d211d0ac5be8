/* Events for files that the host has changed behind a share. */
#ifndef GEMEL_TOUCH_H
#define GEMEL_TOUCH_H

#include <stddef.h>
#include <stdint.h>

/* payload: the share's tag, a 0, a path in it. Whoever watches there hears of it. */
void touch_changed(const uint8_t *payload, size_t length);

#endif
