/* Records: the payload of CONFIG, START and EXEC. Pure. */
#ifndef GEMEL_RECORD_H
#define GEMEL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_STRINGS 8 /* no record of version 1 has more */

struct bytes {
	const uint8_t *data;
	size_t length;
};

struct record {
	unsigned count; /* strings, the key among them */
	struct bytes at[RECORD_STRINGS];
};

struct records {
	const uint8_t *data;
	size_t length;
};

/* The next record: 1, or 0 at the end, or -1 if the bytes are none. */
int record_next(struct records *from, struct record *out);

bool record_is(const struct record *record, const char *key, unsigned values);

/* A copy with a NUL behind it; NULL if the value has a NUL inside (or for want of memory). */
char *record_text(const struct record *record, unsigned index);

/* A decimal number up to `most`; false if it is none. */
bool record_number(const struct record *record, unsigned index, uint64_t most, uint64_t *out);

/* As above in octal. */
bool record_octal(const struct record *record, unsigned index, uint64_t most, uint64_t *out);

/* "0" or "1". */
bool record_switch(const struct record *record, unsigned index, bool *out);

#endif
