#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "config.h"

/* Opens a path inside the root: symbolic links never lead out of it. */
static int open_inside(int root, const char *path, uint64_t flags, uint64_t mode)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* As above, and makes what is missing: folders above it, and itself as a folder or a file. */
static int make_inside(int root, const char *path, bool folder)
{
	char parent[4096];
	size_t length = strlen(path);
	const char *name;
	int above, made;
	int fd = open_inside(root, path, O_PATH, 0);

	while (length > 1 && path[length - 1] == '/')
		length--;
	if (fd >= 0 || errno != ENOENT || length < 2 || length >= sizeof parent)
		return fd;
	memcpy(parent, path, length);
	parent[length] = 0;
	name = strrchr(parent, '/');
	if (!name)
		return -1;
	parent[name - parent] = 0;
	name++;
	above = make_inside(root, *parent ? parent : "/", true);
	if (above < 0)
		return -1;
	if (folder)
		made = mkdirat(above, name, 0755);
	else if ((made = openat(above, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) >= 0)
		close(made);
	close(above);
	return made < 0 ? -1 : open_inside(root, path, O_PATH, 0);
}

/* The flags of a bind mount, and read-only of any, count only when it is mounted again. */
static bool set_flags(int root, const char *target, unsigned long flags)
{
	const unsigned long later = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
	char self[64];
	bool done;
	int fd;

	if (!(flags & MS_RDONLY) && !((flags & MS_BIND) && (flags & later)))
		return true;
	fd = open_inside(root, target, O_PATH, 0);
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	done = fd >= 0 && mount(NULL, self, NULL,
				MS_REMOUNT | MS_BIND | (flags & ~(unsigned long)MS_REC), NULL) == 0;
	if (fd >= 0)
		close(fd);
	return done;
}

/* mount(2) onto a path inside the root. */
static bool mount_inside(int root, const char *source, const char *target, const char *kind,
			 unsigned long flags, const char *data, char *error, size_t size)
{
	struct stat about = {.st_mode = S_IFDIR};
	char self[64];
	bool done;
	int fd;

	if ((flags & MS_BIND) && stat(source, &about) < 0)
		return cannot(error, size, "find", source);
	fd = make_inside(root, target, S_ISDIR(about.st_mode));
	if (fd < 0)
		return cannot(error, size, "make the mount point", target);
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	done = mount(source, self, kind, flags & ~(unsigned long)MS_RDONLY, data) == 0;
	close(fd);
	if (done)
		done = set_flags(root, target, flags);
	return done || cannot(error, size, "mount on", target);
}

static const struct {
	const char *name;
	unsigned major, minor;
} devices[] = {
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8},
	{"urandom", 1, 9}, {"tty", 5, 0},
};

static const char *const device_links[][2] = {
	{"/proc/self/fd", "fd"},       {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},	     {"/proc/kcore", "core"},
};

static bool fill_dev(int root, char *error, size_t size)
{
	int dev = open_inside(root, "/dev", O_PATH | O_DIRECTORY, 0);
	mode_t before = umask(0);
	bool made = dev >= 0;

	for (size_t i = 0; made && i < sizeof devices / sizeof *devices; i++)
		made = mknodat(dev, devices[i].name, S_IFCHR | 0666,
			       makedev(devices[i].major, devices[i].minor)) == 0;
	umask(before);
	if (!made)
		return cannot(error, size, "make the devices of", "/dev");
	for (size_t i = 0; i < sizeof device_links / sizeof *device_links; i++)
		if (symlinkat(device_links[i][0], dev, device_links[i][1]) < 0)
			return cannot(error, size, "make in /dev", device_links[i][1]);
	close(dev);
	return true;
}

static bool mount_system(int root, bool privileged, char *error, size_t size)
{
	const unsigned long strict = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	const unsigned long sys = strict | (privileged ? 0 : MS_RDONLY);
	char shm[64];

	snprintf(shm, sizeof shm, "mode=1777,size=%llu", (unsigned long long)config.shm);
	if (!mount_inside(root, "proc", "/proc", "proc", strict, NULL, error, size) ||
	    !mount_inside(root, "sysfs", "/sys", "sysfs", sys, NULL, error, size) ||
	    !mount_inside(root, "cgroup", "/sys/fs/cgroup", "cgroup2", sys, NULL, error, size))
		return false;
	if (privileged) {
		if (!mount_inside(root, "dev", "/dev", "devtmpfs", MS_NOSUID, NULL, error, size))
			return false;
	} else if (!mount_inside(root, "tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME,
				 "mode=755,size=65536k", error, size) ||
		   !fill_dev(root, error, size)) {
		return false;
	}
	if (!mount_inside(root, "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
			  "newinstance,ptmxmode=0666,mode=0620,gid=5", error, size) ||
	    !mount_inside(root, "shm", "/dev/shm", "tmpfs", strict, shm, error, size))
		return false;
	/* a kernel may be without message queues */
	return mount_inside(root, "mqueue", "/dev/mqueue", "mqueue", strict, NULL, error, size) ||
	       errno == ENODEV;
}

/* Splits options as mount(8) has them into flags and the file system's own. */
static unsigned long mount_flags(const char *options, char *data, size_t size)
{
	static const struct {
		const char *name;
		unsigned long set, clear;
	} known[] = {
		{"ro", MS_RDONLY, 0},	  {"rw", 0, MS_RDONLY},	  {"noexec", MS_NOEXEC, 0},
		{"exec", 0, MS_NOEXEC},	  {"nosuid", MS_NOSUID, 0}, {"suid", 0, MS_NOSUID},
		{"nodev", MS_NODEV, 0},	  {"dev", 0, MS_NODEV},	  {"noatime", MS_NOATIME, 0},
		{"relatime", MS_RELATIME, 0}, {"sync", MS_SYNCHRONOUS, 0}, {"async", 0, 0},
		{"rprivate", 0, 0}, {"private", 0, 0}, {"tmpcopyup", 0, 0}, {"", 0, 0},
	};
	unsigned long flags = 0;
	char *copy = strdup(options), *rest = copy, *one;

	*data = 0;
	while (copy && (one = strsep(&rest, ","))) {
		size_t i, count = sizeof known / sizeof *known, used = strlen(data);
		for (i = 0; i < count && strcmp(one, known[i].name) != 0; i++)
			;
		if (i < count)
			flags = (flags | known[i].set) & ~known[i].clear;
		else if (used + strlen(one) + 2 < size)
			snprintf(data + used, size - used, "%s%s", used ? "," : "", one);
	}
	free(copy);
	return flags;
}

static bool mount_entry(int root, const struct mount_entry *entry, char *error, size_t size)
{
	unsigned long flags = entry->readonly ? MS_RDONLY : 0;
	char data[512], options[600];

	if (entry->kind == MOUNT_TMPFS) {
		/* Docker's defaults, which the options may take back */
		snprintf(options, sizeof options, "nosuid,nodev,noexec,%s", entry->options);
		flags |= mount_flags(options, data, sizeof data);
		return mount_inside(root, "tmpfs", entry->target, "tmpfs", flags, data, error,
				    size);
	}
	if (entry->only_if_there) {
		int fd = open_inside(root, entry->target, O_PATH, 0);
		if (fd < 0)
			return true;
		close(fd);
	}
	if (entry->options)
		flags |= mount_flags(entry->options, data, sizeof data);
	return mount_inside(root, entry->source, entry->target, NULL, flags | MS_BIND | MS_REC,
			    NULL, error, size);
}

bool root_has(const char *path)
{
	int root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = root < 0 ? -1 : open_inside(root, path, O_PATH, 0);

	if (fd >= 0)
		close(fd);
	if (root >= 0)
		close(root);
	return fd >= 0;
}

bool root_pivot(const char *base, char *error, size_t size)
{
	if (chdir(base) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return cannot(error, size, "enter", "the root");
	return true;
}

static bool mask(const char *path, char *error, size_t size)
{
	if (mount("/dev/null", path, NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
		return true;
	if (errno == ENOTDIR && mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k") == 0)
		return true;
	return cannot(error, size, "mask", path);
}

static bool make_readonly(const char *path, char *error, size_t size)
{
	struct statvfs about;
	unsigned long kept;

	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
		return errno == ENOENT || cannot(error, size, "bind", path);
	if (statvfs(path, &about) < 0)
		return cannot(error, size, "look at", path);
	kept = about.f_flag & (ST_NOSUID | ST_NODEV | ST_NOEXEC); /* the same bits as MS_* */
	if (mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | kept, NULL) < 0)
		return cannot(error, size, "make read-only", path);
	return true;
}

bool root_fill(const char *base, const struct program *program, bool all, char *error,
	       size_t size)
{
	int root = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	bool done;

	if (root < 0)
		return cannot(error, size, "open", base);
	done = mount_system(root, program->privileged && !program->debug, error, size);
	for (size_t i = 0; done && all && i < config.mount_count; i++)
		done = mount_entry(root, &config.mounts[i], error, size);
	close(root);
	return done;
}

bool root_enter(const struct program *program, char *error, size_t size)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return cannot(error, size, "make private", "/");
	if (!root_fill(ROOT, program, true, error, size) || !root_pivot(ROOT, error, size))
		return false;
	for (size_t i = 0; i < program->ropaths.count; i++)
		if (!make_readonly(program->ropaths.at[i], error, size))
			return false;
	for (size_t i = 0; i < program->masked.count; i++)
		if (!mask(program->masked.at[i], error, size))
			return false;
	if (config.readonly_root && !program->helper &&
	    mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
		return cannot(error, size, "make read-only", "/");
	return true;
}
