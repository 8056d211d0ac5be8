/* What a program can see and do where it runs, as one line of JSON: the kernel, its own
 * capabilities, which system calls its sandbox lets through, and facts of the machine.
 * Run as the first program of an instance by `gemel compare`, in either runtime. Nothing is
 * changed: each call is made with arguments that cannot succeed, in a child of its own. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOWHERE ((long)-1)

struct attempt {
	const char *name;
	long number;
	long a, b, c, d, e;
};

/* Refused calls answer EPERM or ENOSYS, or the process dies of SIGSYS; let through, they
 * answer another error, since no argument is right. */
static const struct attempt attempts[] = {
	{"add_key", SYS_add_key, NOWHERE, NOWHERE, 0, 0, 0},
	{"bpf", SYS_bpf, 9999, 0, 0, 0, 0},
	{"clock_settime", SYS_clock_settime, 9999, NOWHERE, 0, 0, 0},
	{"delete_module", SYS_delete_module, NOWHERE, 0, 0, 0, 0},
	{"fanotify_init", SYS_fanotify_init, 0xffffffff, 0, 0, 0, 0},
	{"finit_module", SYS_finit_module, -1, NOWHERE, 0, 0, 0},
	{"fsopen", SYS_fsopen, NOWHERE, 0, 0, 0, 0},
	{"io_uring_setup", SYS_io_uring_setup, 0, NOWHERE, 0, 0, 0},
	{"kexec_load", SYS_kexec_load, 0, 0xffff, NOWHERE, 0xff, 0},
	{"keyctl", SYS_keyctl, 9999, 0, 0, 0, 0},
	{"mount", SYS_mount, NOWHERE, NOWHERE, NOWHERE, 0, 0},
	{"open_by_handle_at", SYS_open_by_handle_at, -1, NOWHERE, 0, 0, 0},
	{"perf_event_open", SYS_perf_event_open, NOWHERE, 0, -1, -1, 0},
	{"pivot_root", SYS_pivot_root, NOWHERE, NOWHERE, 0, 0, 0},
	{"process_vm_readv", SYS_process_vm_readv, -1, NOWHERE, 1, NOWHERE, 1},
	{"ptrace", SYS_ptrace, 9999, -1, 0, 0, 0},
	{"quotactl", SYS_quotactl, NOWHERE, NOWHERE, 0, 0, 0},
	{"setns", SYS_setns, -1, 0, 0, 0, 0},
	{"swapon", SYS_swapon, NOWHERE, 0, 0, 0, 0},
	{"syslog", SYS_syslog, 9999, 0, 0, 0, 0},
	{"unshare(user)", SYS_unshare, CLONE_NEWUSER, 0, 0, 0, 0},
	{"userfaultfd", SYS_userfaultfd, 0x7fffffff, 0, 0, 0, 0},
};

static int allowed(const struct attempt *at)
{
	int status = 0;
	pid_t child = fork();

	if (child < 0)
		return 0;
	if (child == 0) {
		long got = syscall(at->number, at->a, at->b, at->c, at->d, at->e, 0);
		_exit(got < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES) ? 1 : 0);
	}
	if (waitpid(child, &status, 0) != child)
		return 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void quoted(const char *text)
{
	putchar('"');
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c >= ' ' && c < 127)
			putchar(c);
		else
			putchar('?');
	}
	putchar('"');
}

/* The first bytes of a file, without the line's end; empty if it cannot be read. */
static const char *head(const char *path, char *to, size_t size)
{
	ssize_t got = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0) {
		got = read(fd, to, size - 1);
		close(fd);
	}
	to[got > 0 ? got : 0] = '\0';
	to[strcspn(to, "\n")] = '\0';
	return to;
}

/* The value of a line `key: value` of a file. */
static const char *field(const char *path, const char *key, char *to, size_t size)
{
	char line[512];
	FILE *file = fopen(path, "re");

	to[0] = '\0';
	while (file != NULL && fgets(line, sizeof line, file) != NULL) {
		if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') {
			const char *value = line + strlen(key) + 1;
			value += strspn(value, " \t");
			snprintf(to, size, "%.*s", (int)strcspn(value, "\n"), value);
			break;
		}
	}
	if (file != NULL)
		fclose(file);
	return to;
}

static long lines(const char *path)
{
	long count = 0;
	int c;
	FILE *file = fopen(path, "re");

	if (file == NULL)
		return -1;
	while ((c = getc(file)) != EOF)
		count += c == '\n';
	fclose(file);
	return count;
}

int main(void)
{
	struct utsname name;
	char text[4096];

	/* /dev/kmsg and others may be terminals or block: nothing may hold this up for long */
	alarm(20);
	memset(&name, 0, sizeof name);
	uname(&name);
	printf("{\"Kernel\":");
	quoted(name.release);
	printf(",\"KernelVersion\":");
	quoted(name.version);
	printf(",\"Capabilities\":");
	quoted(field("/proc/self/status", "CapEff", text, sizeof text));
	printf(",\"BoundingSet\":");
	quoted(field("/proc/self/status", "CapBnd", text, sizeof text));
	printf(",\"Seccomp\":");
	quoted(field("/proc/self/status", "Seccomp", text, sizeof text));
	printf(",\"NoNewPrivs\":");
	quoted(field("/proc/self/status", "NoNewPrivs", text, sizeof text));
	printf(",\"BootId\":");
	quoted(head("/proc/sys/kernel/random/boot_id", text, sizeof text));
	printf(",\"MemTotal\":");
	quoted(field("/proc/meminfo", "MemTotal", text, sizeof text));
	printf(",\"Processors\":%ld", sysconf(_SC_NPROCESSORS_CONF));
	printf(",\"CommandLine\":");
	quoted(head("/proc/cmdline", text, sizeof text));
	printf(",\"Product\":");
	quoted(head("/sys/class/dmi/id/product_name", text, sizeof text));
	printf(",\"Partitions\":%ld", lines("/proc/partitions"));
	printf(",\"Modules\":%ld", lines("/proc/modules"));
	printf(",\"LoadAverage\":");
	quoted(head("/proc/loadavg", text, sizeof text));
	printf(",\"Allowed\":[");
	fflush(stdout); /* or the children would write it again */
	int first = 1;
	for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
		if (allowed(&attempts[i])) {
			printf("%s\"%s\"", first ? "" : ",", attempts[i].name);
			first = 0;
		}
		fflush(stdout);
	}
	printf("],\"Tried\":%zu}\n", sizeof attempts / sizeof attempts[0]);
	return 0;
}
