#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caps.h"
#include "record.h"

static const struct {
	const char *name;
	int which;
} limit_names[] = {
	{"core", RLIMIT_CORE},		 {"cpu", RLIMIT_CPU},
	{"data", RLIMIT_DATA},		 {"fsize", RLIMIT_FSIZE},
	{"locks", RLIMIT_LOCKS},	 {"memlock", RLIMIT_MEMLOCK},
	{"msgqueue", RLIMIT_MSGQUEUE},	 {"nice", RLIMIT_NICE},
	{"nofile", RLIMIT_NOFILE},	 {"nproc", RLIMIT_NPROC},
	{"rss", RLIMIT_RSS},		 {"rtprio", RLIMIT_RTPRIO},
	{"rttime", RLIMIT_RTTIME},	 {"sigpending", RLIMIT_SIGPENDING},
	{"stack", RLIMIT_STACK},	 {"as", RLIMIT_AS},
};

static bool limit_value(const struct record *record, unsigned index, rlim_t *out)
{
	uint64_t value;

	if (record->at[index].length == 2 && memcmp(record->at[index].data, "-1", 2) == 0) {
		*out = RLIM_INFINITY;
		return true;
	}
	if (!record_number(record, index, UINT64_MAX, &value))
		return false;
	*out = value;
	return true;
}

static bool add_limit(const struct record *record, struct program *out)
{
	struct limit *limit = &out->limits[out->limit_count];
	const struct bytes *name = &record->at[1];

	if (out->limit_count == RLIMITS_MAX || !limit_value(record, 2, &limit->value.rlim_cur) ||
	    !limit_value(record, 3, &limit->value.rlim_max))
		return false;
	for (size_t i = 0; i < sizeof limit_names / sizeof *limit_names; i++)
		if (strlen(limit_names[i].name) == name->length &&
		    memcmp(limit_names[i].name, name->data, name->length) == 0) {
			limit->which = limit_names[i].which;
			out->limit_count++;
			return true;
		}
	return false;
}

static bool add_cap(const struct record *record, struct program *out)
{
	char *name = record_text(record, 1);
	uint64_t bit;
	bool known = name && cap_bit(name, &bit);

	free(name);
	if (known)
		out->caps |= bit;
	return known;
}

static bool set_tty(const struct record *record, struct program *out)
{
	uint64_t rows, columns;

	if (!record_number(record, 1, 65535, &rows) || !record_number(record, 2, 65535, &columns))
		return false;
	out->tty = true;
	out->rows = (uint16_t)rows;
	out->columns = (uint16_t)columns;
	return true;
}

static bool set_text(const struct record *record, char **out)
{
	free(*out);
	*out = record_text(record, 1);
	return *out != NULL;
}

static bool set_number(const struct record *record, bool *has, uint64_t *out)
{
	*has = record_number(record, 1, INT64_MAX, out);
	return *has;
}

static bool apply_list(const struct record *record, struct program *out, bool *known)
{
	*known = true;
	if (record_is(record, "arg", 1))
		return list_add(&out->args, record_text(record, 1));
	if (record_is(record, "env", 1))
		return list_add(&out->env, record_text(record, 1));
	if (record_is(record, "group", 1))
		return list_add(&out->groups, record_text(record, 1));
	if (record_is(record, "masked", 1))
		return list_add(&out->masked, record_text(record, 1));
	if (record_is(record, "ropath", 1))
		return list_add(&out->ropaths, record_text(record, 1));
	*known = false;
	return false;
}

static bool apply(const struct record *record, struct program *out)
{
	bool known, done = apply_list(record, out, &known);

	if (known)
		return done;
	if (record_is(record, "cwd", 1))
		return set_text(record, &out->cwd);
	if (record_is(record, "user", 1))
		return set_text(record, &out->user);
	if (record_is(record, "tty", 2))
		return set_tty(record, out);
	if (record_is(record, "stdin", 0))
		return out->open_stdin = true;
	if (record_is(record, "nnp", 0))
		return out->nnp = true;
	if (record_is(record, "privileged", 0))
		return out->privileged = true;
	if (record_is(record, "helper", 0))
		return out->helper = true;
	if (record_is(record, "debug", 0))
		return out->debug = true;
	if (record_is(record, "hook", 0))
		return out->hook = true;
	if (record_is(record, "held", 0))
		return out->held = true;
	if (record_is(record, "disk", 1))
		return record_number(record, 1, INT64_MAX, &out->disk);
	if (record_is(record, "cap", 1))
		return add_cap(record, out);
	if (record_is(record, "rlimit", 3))
		return add_limit(record, out);
	if (record_is(record, "pids", 1))
		return set_number(record, &out->has_pids, &out->pids);
	if (record_is(record, "memory", 1))
		return set_number(record, &out->has_memory, &out->memory);
	if (record_is(record, "swap", 1))
		return set_number(record, &out->has_swap, &out->swap);
	return false;
}

bool program_parse(const uint8_t *data, size_t length, struct program *out, char *error,
		   size_t size)
{
	struct records all = {data, length};
	struct record record;
	int next;

	memset(out, 0, sizeof *out);
	while ((next = record_next(&all, &record)) > 0)
		if (!apply(&record, out)) {
			int shown = (int)(record.at[0].length > 40 ? 40 : record.at[0].length);
			snprintf(error, size, "a record that is none: %.*s", shown,
				 (const char *)record.at[0].data);
			return false;
		}
	if (next < 0 || (out->args.count == 0 && !out->disk)) {
		snprintf(error, size, next < 0 ? "a message that is cut short" : "no command");
		return false;
	}
	if (!out->cwd)
		out->cwd = strdup("/");
	if (!out->user)
		out->user = strdup("");
	snprintf(error, size, "out of memory");
	return out->cwd && out->user;
}

void program_free(struct program *program)
{
	list_free(&program->args);
	list_free(&program->env);
	list_free(&program->groups);
	list_free(&program->masked);
	list_free(&program->ropaths);
	free(program->cwd);
	free(program->user);
	memset(program, 0, sizeof *program);
}

const char *program_env(const struct program *program, const char *name)
{
	size_t length = strlen(name);

	/* the last one counts, as with getenv in a shell that is handed both */
	for (size_t i = program->env.count; i-- > 0;)
		if (strncmp(program->env.at[i], name, length) == 0 &&
		    program->env.at[i][length] == '=')
			return program->env.at[i] + length + 1;
	return NULL;
}
