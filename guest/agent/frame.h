/* Frames and credit. Pure. */
#ifndef GEMEL_FRAME_H
#define GEMEL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
	uint32_t session;
	uint8_t type;
	uint8_t flags;
	const uint8_t *payload;
	uint32_t length;
};

/* Looks at the first frame in `data`: its whole size in bytes, 0 if more is needed, -1 if it is none. */
long frame_parse(const uint8_t *data, size_t length, struct frame *out);

/* Writes a header of FRAME_HEADER bytes. */
void frame_header(uint8_t *out, uint32_t session, uint8_t type, uint8_t flags, uint32_t length);

uint32_t get_u32(const uint8_t *data);
uint16_t get_u16(const uint8_t *data);
void put_u32(uint8_t *out, uint32_t value);

/* Adds credit; false (and no change) if that is more than may be given. */
bool credit_add(uint32_t *credit, uint32_t more);

#endif
