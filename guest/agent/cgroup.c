#include "cgroup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#define BASE "/sys/fs/cgroup"
#define HOOK_GROUP BASE "/hook"

bool cgroup_setup(void)
{
	static const char *const controllers[] = {"+cpu", "+memory", "+pids", "+io"};

	if (mount("cgroup2", BASE, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return false;
	for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
		put_file(BASE "/cgroup.subtree_control", controllers[i]); /* some kernels lack one */
	return mkdir(SERVICE_GROUP, 0755) == 0;
}

bool cgroup_renew(void)
{
	int64_t end = now_ms() + 3000;

	while (rmdir(SERVICE_GROUP) < 0) {
		if (errno != EBUSY || now_ms() > end)
			return false;
		usleep(2000);
	}
	return mkdir(SERVICE_GROUP, 0755) == 0;
}

bool cgroup_join(void)
{
	return put_file(SERVICE_GROUP "/cgroup.procs", "0") == 0;
}

bool cgroup_join_hook(void)
{
	if (mkdir(HOOK_GROUP, 0755) < 0 && errno != EEXIST)
		return false;
	return put_file(HOOK_GROUP "/cgroup.procs", "0") == 0;
}

void cgroup_end_hook(void)
{
	put_file(HOOK_GROUP "/cgroup.kill", "1");
}

static bool limit(const char *file, uint64_t value, char *error, size_t size)
{
	char text[32], path[128];

	snprintf(path, sizeof path, SERVICE_GROUP "/%s", file);
	snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	if (put_file(path, text) == 0)
		return true;
	snprintf(error, size, "cannot set %s: %s", file, strerror(errno));
	return false;
}

bool cgroup_limit(const struct program *program, char *error, size_t size)
{
	if (program->has_pids && !limit("pids.max", program->pids, error, size))
		return false;
	if (program->has_memory && !limit("memory.max", program->memory, error, size))
		return false;
	/* a kernel without swap has no such file, and no swap to limit */
	if (program->has_swap && access(SERVICE_GROUP "/memory.swap.max", F_OK) == 0)
		return limit("memory.swap.max", program->swap, error, size);
	return true;
}

bool cgroup_freeze(bool frozen)
{
	return put_file(SERVICE_GROUP "/cgroup.freeze", frozen ? "1" : "0") == 0;
}

/* The number after `key ` at the start of a line; 0 without. */
static unsigned long long field(const char *text, const char *key)
{
	size_t length = strlen(key);

	for (const char *line = text; line && *line;) {
		if (strncmp(line, key, length) == 0 && line[length] == ' ')
			return strtoull(line + length, NULL, 10);
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return 0;
}

bool cgroup_is_frozen(void)
{
	char text[256];

	return get_file(SERVICE_GROUP "/cgroup.events", text, sizeof text) > 0 &&
	       field(text, "frozen") == 1;
}

bool cgroup_has_groups(void)
{
	char text[256];

	return get_file(SERVICE_GROUP "/cgroup.stat", text, sizeof text) <= 0 ||
	       field(text, "nr_descendants") > 0;
}

void cgroup_signal(int number)
{
	char text[16384], *at = text, *end;

	if (number == SIGKILL && put_file(SERVICE_GROUP "/cgroup.kill", "1") == 0)
		return;
	if (get_file(SERVICE_GROUP "/cgroup.procs", text, sizeof text) <= 0)
		return;
	for (long pid; (pid = strtol(at, &end, 10)) > 0 && end != at; at = end)
		kill((pid_t)pid, number);
}

unsigned long cgroup_oom_kills(void)
{
	char text[256];

	if (get_file(SERVICE_GROUP "/memory.events", text, sizeof text) <= 0)
		return 0;
	return (unsigned long)field(text, "oom_kill");
}

static size_t line(char *out, size_t size, size_t at, const char *key, unsigned long long value)
{
	int done;

	if (at >= size)
		return at;
	done = snprintf(out + at, size - at, "%s %llu\n", key, value);
	return done < 0 || (size_t)done >= size - at ? at : at + (size_t)done;
}

/* One number in a file of the group; `max` or nothing is 0. */
static unsigned long long number(const char *file)
{
	char path[128], text[64];

	snprintf(path, sizeof path, SERVICE_GROUP "/%s", file);
	return get_file(path, text, sizeof text) > 0 ? strtoull(text, NULL, 10) : 0;
}

/* Adds up `key=N` over all devices of io.stat. */
static unsigned long long io_sum(const char *text, const char *key)
{
	unsigned long long sum = 0;

	for (const char *at = text; (at = strstr(at, key)); at += strlen(key))
		sum += strtoull(at + strlen(key), NULL, 10);
	return sum;
}

static size_t memory_lines(char *out, size_t size, size_t at)
{
	char text[8192], *rest = text, *one;
	unsigned long long cache = 0;

	if (get_file(SERVICE_GROUP "/memory.stat", text, sizeof text) <= 0)
		return at;
	cache = field(text, "file");
	while ((one = strsep(&rest, "\n")) && *one) {
		char key[80], *space = strchr(one, ' ');
		if (!space)
			continue;
		*space = 0;
		snprintf(key, sizeof key, "memory.%s", one);
		at = line(out, size, at, key, strtoull(space + 1, NULL, 10));
	}
	return line(out, size, at, "cache", cache);
}

size_t cgroup_usage(char *out, size_t size)
{
	char text[2048];
	struct sysinfo machine;
	struct timespec up;
	size_t at = 0;

	get_file(SERVICE_GROUP "/cpu.stat", text, sizeof text);
	at = line(out, size, at, "cpu_ns", field(text, "usage_usec") * 1000);
	at = line(out, size, at, "user_ns", field(text, "user_usec") * 1000);
	at = line(out, size, at, "system_ns", field(text, "system_usec") * 1000);
	at = line(out, size, at, "memory", number("memory.current"));
	at = line(out, size, at, "memory_peak", number("memory.peak"));
	at = line(out, size, at, "memory_limit", number("memory.max"));
	at = line(out, size, at, "pids", number("pids.current"));
	at = line(out, size, at, "pids_limit", number("pids.max"));
	get_file(SERVICE_GROUP "/io.stat", text, sizeof text);
	at = line(out, size, at, "read_bytes", io_sum(text, "rbytes="));
	at = line(out, size, at, "write_bytes", io_sum(text, "wbytes="));
	clock_gettime(CLOCK_BOOTTIME, &up);
	at = line(out, size, at, "uptime_ns",
		  (unsigned long long)up.tv_sec * 1000000000u + (unsigned long long)up.tv_nsec);
	if (sysinfo(&machine) == 0) {
		at = line(out, size, at, "guest_total", machine.totalram * machine.mem_unit);
		at = line(out, size, at, "guest_free", machine.freeram * machine.mem_unit);
	}
	return memory_lines(out, size, at);
}
