#include "debug.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "boot.h"
#include "config.h"
#include "root.h"
#include "util.h"

#define GROUP "/sys/fs/cgroup/debug"
#define DEVICE "/dev/nbd0"
#define BASE "/gemel/debug"
#define BLOCK 4096u
#define DISK_TIMEOUT 60u /* seconds that the host may take for one answer */
#define DISK_WAIT_MS 15000

bool debug_prepare(void)
{
	return mkdir(GROUP, 0755) == 0 || errno == EEXIST;
}

void debug_kill(void)
{
	put_file(GROUP "/cgroup.kill", "1");
}

bool debug_serve_disk(int fd, int ready, uint64_t size, char *error, size_t length)
{
	const unsigned long flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
	int device, readonly = 1;

	load_modules("nbd");
	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0) {
		snprintf(error, length, "this guest's kernel has no network block device (nbd): %s",
			 strerror(errno));
		return false;
	}
	ioctl(device, NBD_CLEAR_SOCK);
	if (ioctl(device, NBD_SET_SOCK, fd) < 0)
		return cannot(error, length, "use", errno == EBUSY ? "a disk that is in use" : DEVICE);
	if (ioctl(device, NBD_SET_BLKSIZE, (unsigned long)BLOCK) < 0 ||
	    ioctl(device, NBD_SET_SIZE_BLOCKS, (unsigned long)(size / BLOCK)) < 0 ||
	    ioctl(device, NBD_SET_TIMEOUT, (unsigned long)DISK_TIMEOUT) < 0 ||
	    ioctl(device, NBD_SET_FLAGS, flags) < 0)
		return cannot(error, length, "set up", DEVICE);
	ioctl(device, BLKROSET, &readonly);
	close(ready);
	ioctl(device, NBD_DO_IT);
	ioctl(device, NBD_CLEAR_QUE);
	ioctl(device, NBD_CLEAR_SOCK);
	return true;
}

/* The disk is usable a moment after its session has started. */
static bool mount_tools(char *error, size_t size)
{
	int64_t end = now_ms() + DISK_WAIT_MS;

	do {
		if (access("/sys/block/nbd0/pid", F_OK) == 0 &&
		    mount(DEVICE, BASE "/lower", "squashfs", MS_RDONLY | MS_NODEV, NULL) == 0)
			return true;
		usleep(5000);
	} while (now_ms() < end);
	return cannot(error, size, "mount", "the toolbox");
}

static bool mount_root(bool alone, char *error, size_t size)
{
	const char *options = "lowerdir=" BASE "/lower,upperdir=" BASE "/rw/upper,"
			      "workdir=" BASE "/rw/work";

	if (!make_folders(BASE "/lower", 0755) || !make_folders(BASE "/rw", 0755) ||
	    !make_folders(BASE "/root", 0755))
		return cannot(error, size, "make", BASE);
	if (!mount_tools(error, size))
		return false;
	if (mount("tmpfs", BASE "/rw", "tmpfs", MS_NODEV, "mode=0755,size=25%") < 0 ||
	    mkdir(BASE "/rw/upper", 0755) < 0 || mkdir(BASE "/rw/work", 0755) < 0)
		return cannot(error, size, "mount", BASE "/rw");
	/* the toolbox has a link there that leads to the root of process 1 */
	if (alone && mkdir(BASE "/rw/upper/service", 0755) < 0)
		return cannot(error, size, "make", "/service");
	if (mount("overlay", BASE "/root", "overlay", 0, options) < 0)
		return cannot(error, size, "mount", BASE "/root");
	return true;
}

bool debug_enter(const struct program *program, bool alone, char *error, size_t size)
{
	put_file("/proc/self/oom_score_adj", "900");
	if (put_file(GROUP "/cgroup.procs", "0") < 0)
		return cannot(error, size, "join", GROUP);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return cannot(error, size, "make private", "/");
	if (!mount_root(alone, error, size))
		return false;
	if (alone && (!root_fill(ROOT, program, true, error, size) ||
		      mount(ROOT, BASE "/root/service", NULL, MS_BIND | MS_REC, NULL) < 0))
		return *error ? false : cannot(error, size, "bind", ROOT);
	return root_fill(BASE "/root", program, false, error, size) &&
	       root_pivot(BASE "/root", error, size);
}
