#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "util.h"

/* Makes the first root a mount that has another below it: only then can the service's
 * processes pivot_root(2) away from it. */
static void move_root(void)
{
	if (mkdir("/base", 0755) < 0 || mount("/", "/base", NULL, MS_BIND, NULL) < 0 ||
	    chdir("/base") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		give_up("cannot move the first root: %s", strerror(errno));
}

static void load_module(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof path, "/modules/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* of block devices of the network one is enough: making sixteen takes its time */
	if (syscall(SYS_finit_module, fd, strcmp(name, "nbd") == 0 ? "nbds_max=1" : "", 0) < 0 && errno != EEXIST)
		say("module %s: %s", name, strerror(errno));
	close(fd);
}

/* Each line of the list: a module's name, and what asks for it unless every guest needs it. */
void load_modules(const char *wanted)
{
	char list[4096], *rest = list, *name;

	if (get_file("/modules.list", list, sizeof list) < 0)
		return;
	while ((name = strsep(&rest, "\n"))) {
		char *by = name + strcspn(name, " ");
		if (*by)
			*by++ = 0;
		if (*name && !strchr(name, '/') && strcmp(by, wanted) == 0)
			load_module(name);
	}
}

/* The kernel starts us without standard streams if its console is not there yet (its driver is a
 * module). Nothing else may get their numbers: a new process puts its own streams there. */
static void hold_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 2);
	if (fd > 2)
		close(fd);
}

void boot(void)
{
	const unsigned long strict = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	move_root();
	if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0 ||
	    mount("proc", "/proc", "proc", strict, NULL) < 0 ||
	    mount("sysfs", "/sys", "sysfs", strict, NULL) < 0)
		give_up("cannot mount the kernel's file systems: %s", strerror(errno));
	hold_streams();
	put_file("/proc/self/oom_score_adj", "-1000");
	load_modules("");
	if (!cgroup_setup())
		give_up("cannot make control groups: %s", strerror(errno));
}
