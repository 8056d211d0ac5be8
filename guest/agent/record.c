#include "record.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"

static bool take(struct records *from, size_t count, const uint8_t **out)
{
	if (from->length < count)
		return false;
	*out = from->data;
	from->data += count;
	from->length -= count;
	return true;
}

int record_next(struct records *from, struct record *out)
{
	const uint8_t *at;

	if (from->length == 0)
		return 0;
	if (!take(from, 2, &at))
		return -1;
	out->count = get_u16(at);
	if (out->count == 0 || out->count > RECORD_STRINGS)
		return -1;
	for (unsigned i = 0; i < out->count; i++) {
		if (!take(from, 4, &at))
			return -1;
		out->at[i].length = get_u32(at);
		if (!take(from, out->at[i].length, &out->at[i].data))
			return -1;
	}
	return 1;
}

bool record_is(const struct record *record, const char *key, unsigned values)
{
	return record->count == values + 1 && record->at[0].length == strlen(key) &&
	       memcmp(record->at[0].data, key, record->at[0].length) == 0;
}

char *record_text(const struct record *record, unsigned index)
{
	const struct bytes *value = &record->at[index];
	char *copy;

	if (memchr(value->data, 0, value->length))
		return NULL;
	copy = malloc(value->length + 1);
	if (!copy)
		return NULL;
	memcpy(copy, value->data, value->length);
	copy[value->length] = 0;
	return copy;
}

static bool number(const struct bytes *value, unsigned base, uint64_t most, uint64_t *out)
{
	uint64_t sum = 0;

	if (value->length == 0 || value->length > 24)
		return false;
	for (size_t i = 0; i < value->length; i++) {
		unsigned digit = (unsigned)value->data[i] - '0';
		if (digit >= base || sum > (UINT64_MAX - digit) / base)
			return false;
		sum = sum * base + digit;
	}
	if (sum > most)
		return false;
	*out = sum;
	return true;
}

bool record_number(const struct record *record, unsigned index, uint64_t most, uint64_t *out)
{
	return number(&record->at[index], 10, most, out);
}

bool record_octal(const struct record *record, unsigned index, uint64_t most, uint64_t *out)
{
	return number(&record->at[index], 8, most, out);
}

bool record_switch(const struct record *record, unsigned index, bool *out)
{
	uint64_t value;

	if (!record_number(record, index, 1, &value))
		return false;
	*out = value == 1;
	return true;
}
