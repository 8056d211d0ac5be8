#include "users.h"

#include <stdio.h>
#include <string.h>

#define ID_MAX 2147483647u
#define FIELDS 7

struct field {
	const char *text;
	size_t length;
};

struct file {
	const char *text;
	size_t length;
};

/* Splits the next line that has at least `wanted` fields; false at the end of the file. */
static bool next_line(struct file *file, struct field *fields, unsigned wanted)
{
	while (file->length > 0) {
		const char *line = file->text;
		const char *newline = memchr(line, '\n', file->length);
		size_t length = newline ? (size_t)(newline - line) : file->length;
		unsigned count = 0;

		file->text += length + (newline ? 1 : 0);
		file->length -= length + (newline ? 1 : 0);
		while (count < FIELDS) {
			const char *colon = memchr(line, ':', length);
			size_t size = colon ? (size_t)(colon - line) : length;
			fields[count].text = line;
			fields[count++].length = size;
			if (!colon)
				break;
			line += size + 1;
			length -= size + 1;
		}
		if (count >= wanted && fields[0].length > 0 && fields[0].text[0] != '#')
			return true;
	}
	return false;
}

static bool parse_id(const char *text, size_t length, uint32_t *out)
{
	uint64_t sum = 0;

	if (length == 0 || length > 10)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		sum = sum * 10 + (uint64_t)(text[i] - '0');
	}
	if (sum > ID_MAX)
		return false;
	*out = (uint32_t)sum;
	return true;
}

static bool same(const struct field *field, const char *text, size_t length)
{
	return field->length == length && memcmp(field->text, text, length) == 0;
}

/* Whether `name` is in a comma-separated list. */
static bool listed(const struct field *list, const char *name, size_t length)
{
	const char *at = list->text;
	size_t left = list->length;

	for (;;) {
		const char *comma = left ? memchr(at, ',', left) : NULL;
		struct field entry = {at, comma ? (size_t)(comma - at) : left};
		if (length > 0 && same(&entry, name, length))
			return true;
		if (!comma)
			return false;
		left -= entry.length + 1;
		at = comma + 1;
	}
}

static void add_group(struct user *user, uint32_t gid)
{
	for (size_t i = 0; i < user->group_count; i++)
		if (user->groups[i] == gid)
			return;
	if (user->group_count < GROUPS_MAX)
		user->groups[user->group_count++] = gid;
}

/* Finds a group by name or number; a number need not be in the file. */
static bool find_group(struct file file, const char *text, size_t length, uint32_t *gid)
{
	struct field fields[FIELDS];
	uint32_t wanted, found;

	if (parse_id(text, length, &wanted)) {
		*gid = wanted;
		return true;
	}
	while (next_line(&file, fields, 3))
		if (same(&fields[0], text, length) &&
		    parse_id(fields[2].text, fields[2].length, &found)) {
			*gid = found;
			return true;
		}
	return false;
}

/* Finds the user; true with *name's length 0 for a number that the file has not. */
static bool find_user(struct file file, const char *text, size_t length, struct user *out,
		      struct field *name)
{
	struct field fields[FIELDS];
	uint32_t wanted = 0, uid, gid;
	bool numeric = length == 0 || parse_id(text, length, &wanted);

	name->length = 0;
	while (next_line(&file, fields, 6)) {
		size_t home = fields[5].length;
		if (!parse_id(fields[2].text, fields[2].length, &uid) ||
		    !parse_id(fields[3].text, fields[3].length, &gid))
			continue;
		if (numeric ? uid != wanted : !same(&fields[0], text, length))
			continue;
		*name = fields[0];
		out->uid = uid;
		out->gid = gid;
		if (home > 0 && home < sizeof out->home) {
			memcpy(out->home, fields[5].text, home);
			out->home[home] = 0;
		}
		return true;
	}
	out->uid = wanted;
	return numeric;
}

static bool fail(char *error, size_t size, const char *what, const char *name, size_t length,
		 const char *file)
{
	snprintf(error, size, "unable to find %s %.*s: no matching entries in %s file", what,
		 (int)(length > 200 ? 200 : length), name, file);
	return false;
}

bool user_resolve(const char *spec, char *const *more, size_t more_count, const char *passwd,
		  size_t passwd_length, const char *group, size_t group_length, struct user *out,
		  char *error, size_t error_size)
{
	struct file users = {passwd ? passwd : "", passwd ? passwd_length : 0};
	struct file groups = {group ? group : "", group ? group_length : 0};
	const char *colon = strchr(spec, ':');
	size_t length = colon ? (size_t)(colon - spec) : strlen(spec);
	struct field fields[FIELDS], name = {NULL, 0};
	uint32_t gid;

	memset(out, 0, sizeof *out);
	strcpy(out->home, "/");
	if (!find_user(users, spec, length, out, &name))
		return fail(error, error_size, "user", spec, length, "passwd");
	if (colon && colon[1] &&
	    !find_group(groups, colon + 1, strlen(colon + 1), &out->gid))
		return fail(error, error_size, "group", colon + 1, strlen(colon + 1), "group");
	add_group(out, out->gid); /* as Docker does since CVE-2022-36109 */
	/* a group that is named explicitly leaves out the user's others */
	if (!(colon && colon[1]) && name.length > 0) {
		struct file file = groups;
		while (next_line(&file, fields, 4))
			if (listed(&fields[3], name.text, name.length) &&
			    parse_id(fields[2].text, fields[2].length, &gid))
				add_group(out, gid);
	}
	for (size_t i = 0; i < more_count; i++) {
		if (!find_group(groups, more[i], strlen(more[i]), &gid))
			return fail(error, error_size, "group", more[i], strlen(more[i]), "group");
		add_group(out, gid);
	}
	return true;
}

bool user_name(uint32_t uid, const char *passwd, size_t length, char *out, size_t size)
{
	struct file file = {passwd ? passwd : "", passwd ? length : 0};
	struct field fields[FIELDS];
	uint32_t found;

	while (next_line(&file, fields, 3))
		if (parse_id(fields[2].text, fields[2].length, &found) && found == uid &&
		    fields[0].length < size) {
			memcpy(out, fields[0].text, fields[0].length);
			out[fields[0].length] = 0;
			return true;
		}
	return false;
}
