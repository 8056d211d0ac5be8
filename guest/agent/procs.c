#include "procs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "users.h"
#include "util.h"

#define TEXT_MAX (4u << 20)

struct facts {
	char state;
	long parent, terminal, pages;
	unsigned long long user, system, started;
	char name[64];
};

/* Reads /proc/PID/stat: pid (name) state ppid pgrp session tty … (man 5 proc). */
static bool read_stat(long pid, struct facts *out)
{
	char path[64], text[1024], *open, *close;

	snprintf(path, sizeof path, "/proc/%ld/stat", pid);
	if (get_file(path, text, sizeof text) <= 0)
		return false;
	open = strchr(text, '(');
	close = strrchr(text, ')');
	if (!open || !close)
		return false;
	snprintf(out->name, sizeof out->name, "%.*s", (int)(close - open - 1), open + 1);
	return sscanf(close + 2,
		      "%c %ld %*d %*d %ld %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d "
		      "%*d %llu %*u %ld",
		      &out->state, &out->parent, &out->terminal, &out->user, &out->system,
		      &out->started, &out->pages) == 7;
}

static void read_command(long pid, const struct facts *facts, char *out, size_t size)
{
	char path[64];
	long length;

	snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
	length = get_file(path, out, size);
	while (length > 0 && out[length - 1] == 0)
		length--;
	if (length <= 0) {
		snprintf(out, size, "[%s]", facts->name);
		length = (long)strlen(out);
	}
	for (long i = 0; i < length; i++)
		if ((unsigned char)out[i] < ' ' || out[i] == 127)
			out[i] = ' ';
	out[length] = 0;
}

static int write_line(FILE *out, long pid, const char *passwd, size_t passwd_length, time_t boot)
{
	const unsigned long long ticks = (unsigned long long)sysconf(_SC_CLK_TCK);
	char path[64], command[4096], user[64], terminal[32] = "?";
	struct facts facts;
	struct stat about;

	snprintf(path, sizeof path, "/proc/%ld", pid);
	if (stat(path, &about) < 0 || !read_stat(pid, &facts))
		return 0;
	read_command(pid, &facts, command, sizeof command);
	if (!user_name(about.st_uid, passwd, passwd_length, user, sizeof user))
		snprintf(user, sizeof user, "%u", about.st_uid);
	for (char *at = user; *at; at++)
		if ((unsigned char)*at < ' ')
			*at = '?';
	if (facts.terminal >> 8 == 136) /* major of pts; the low byte is its number */
		snprintf(terminal, sizeof terminal, "pts/%ld", facts.terminal & 255);
	return fprintf(out, "%ld\t%ld\t%u\t%s\t%c\t%llu\t%lld\t%lld\t%s\t%s\n", pid,
		       facts.parent == getpid() ? 0 : facts.parent, about.st_uid, user, facts.state,
		       (facts.user + facts.system) * (1000000000 / ticks),
		       (long long)boot + (long long)(facts.started / ticks),
		       (long long)facts.pages * sysconf(_SC_PAGESIZE), terminal, command);
}

char *procs_text(const char *passwd, size_t passwd_length, size_t *length)
{
	size_t pids_size = 1 << 20;
	char *pids = malloc(pids_size), *text = NULL, *at = pids, *end;
	FILE *out = open_memstream(&text, length);
	time_t boot = time(NULL) - (time_t)(now_ms() / 1000);

	if (pids && out && get_file(SERVICE_GROUP "/cgroup.procs", pids, pids_size) > 0)
		for (long pid; (pid = strtol(at, &end, 10)) > 0 && end != at; at = end) {
			if (write_line(out, pid, passwd, passwd_length, boot) < 0 ||
			    ftell(out) > (long)TEXT_MAX)
				break;
		}
	free(pids);
	if (out)
		fclose(out);
	return text;
}
