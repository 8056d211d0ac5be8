/* Another identity for a guest that was saved while its service ran. */
#ifndef GEMEL_IDENTITY_H
#define GEMEL_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Carries out a whole IDENTITY message. Only while the service stands still. False: `error` says
 * why, and the guest is neither the one nor the other: it must not go on. */
bool identity_apply(const uint8_t *data, size_t length, char *error, size_t size);

#endif
