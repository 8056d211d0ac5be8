/* Drives the agent's pure parts with the bytes of standard input, under sanitizers.
 * usage: fuzz < bytes. Exits 0 unless a rule is broken (a sanitizer aborts by itself). */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../guest/agent/frame.h"
#include "../../../guest/agent/program.h"
#include "../../../guest/agent/protocol.h"
#include "../../../guest/agent/record.h"
#include "../../../guest/agent/users.h"

/* An exact copy on the heap, so that reading one byte too far is seen. */
static uint8_t *copy_of(const uint8_t *data, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);

	memcpy(copy, data, length);
	return length ? copy : realloc(copy, 1);
}

static void frames(const uint8_t *data, size_t length)
{
	uint8_t *copy = copy_of(data, length);
	size_t at = 0;
	struct frame frame;
	uint8_t header[FRAME_HEADER];
	uint32_t credit = WINDOW;
	long size;

	while ((size = frame_parse(copy + at, length - at, &frame)) > 0) {
		assert((size_t)size == FRAME_HEADER + frame.length && at + (size_t)size <= length);
		frame_header(header, frame.session, frame.type, frame.flags, frame.length);
		assert(memcmp(header, copy + at, sizeof header) == 0);
		if (frame.length >= 4) {
			uint32_t before = credit, more = get_u32(frame.payload);
			if (credit_add(&credit, more))
				assert(credit == before + more && credit <= CREDIT_MAX);
			else
				assert(credit == before);
		}
		at += (size_t)size;
	}
	free(copy);
}

static void records(const uint8_t *data, size_t length)
{
	uint8_t *copy = copy_of(data, length);
	struct records all = {copy, length};
	struct record record;
	struct program program;
	uint64_t number;
	char error[64];

	while (record_next(&all, &record) > 0)
		for (unsigned i = 0; i < record.count; i++) {
			char *text = record_text(&record, i);
			assert(!text || strlen(text) == record.at[i].length);
			free(text);
			if (record_number(&record, i, 1000, &number))
				assert(number <= 1000);
			if (record_octal(&record, i, 07777, &number))
				assert(number <= 07777);
		}
	program_parse(copy, length, &program, error, sizeof error);
	program_env(&program, "PATH");
	program_free(&program);
	free(copy);
}

static void users(const uint8_t *data, size_t length)
{
	size_t half = length / 2;
	char *passwd = (char *)copy_of(data, half), *group = (char *)copy_of(data + half, length - half);
	static const char *const specs[] = {"", "root", "0", "ann:wheel", "7:8", ":", "a:", "4294967296"};
	char *more[] = {"wheel", "12"};
	struct user user;
	char error[48], name[16];

	for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
		if (!user_resolve(specs[i], more, i % 3, passwd, half, group, length - half, &user, error,
				  sizeof error))
			assert(strlen(error) > 0);
		else
			assert(user.group_count <= GROUPS_MAX && user.home[0]);
	}
	user_name(1000, passwd, half, name, sizeof name);
	free(passwd);
	free(group);
}

int main(void)
{
	static uint8_t data[1 << 20];
	size_t length = fread(data, 1, sizeof data, stdin);

	/* the input is a sequence of cases: u16 length, bytes */
	for (size_t at = 0; at + 2 <= length;) {
		size_t size = (size_t)get_u16(data + at);
		at += 2;
		if (size > length - at)
			size = length - at;
		frames(data + at, size);
		records(data + at, size);
		users(data + at, size);
		at += size;
	}
	return 0;
}
