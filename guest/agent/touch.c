/* In a process of its own: a file server that hangs must not hold the agent up. */
#include "touch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config.h"

enum { MOST = 4096, REMEMBERED = 256 };

static int open_inside(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};

	return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
}

/* What the host has now, not what was seen last. false: it is gone. */
static bool look(int fd, struct statx *facts)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, facts) == 0 &&
	       facts->stx_nlink > 0;
}

/* Files as they were when they were touched last: the host hears of that itself, and would have
 * it done again and again. */
static struct seen {
	uint64_t inode, size;
	uint32_t device;
	struct statx_timestamp changed;
} seen[REMEMBERED];

static struct seen *find(const struct statx *facts)
{
	static unsigned next;

	for (unsigned i = 0; i < REMEMBERED; i++)
		if (seen[i].inode == facts->stx_ino && seen[i].device == facts->stx_dev_minor)
			return &seen[i];
	next = (next + 1) % REMEMBERED;
	seen[next] = (struct seen){.inode = facts->stx_ino, .device = facts->stx_dev_minor};
	return &seen[next];
}

static bool is_news(const struct statx *facts)
{
	struct seen *known = find(facts);
	bool same = known->size == facts->stx_size &&
		    known->changed.tv_sec == facts->stx_mtime.tv_sec &&
		    known->changed.tv_nsec == facts->stx_mtime.tv_nsec;

	known->size = facts->stx_size;
	known->changed = facts->stx_mtime;
	return !same;
}

/* The time of its last change is set to what it is (IN_MODIFY), and the file opened for writing
 * and closed (IN_CLOSE_WRITE). */
static void touch_file(int fd, const char *self, const struct statx *facts)
{
	struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT},
		{.tv_sec = facts->stx_mtime.tv_sec, .tv_nsec = facts->stx_mtime.tv_nsec}};
	struct statx after;
	int file;

	if (!is_news(facts) || utimensat(AT_FDCWD, self, times, 0) < 0)
		return;
	if (look(fd, &after) && after.stx_size != facts->stx_size) {
		/* written to meanwhile: it must not look older than it is */
		times[1].tv_nsec = UTIME_NOW;
		utimensat(AT_FDCWD, self, times, 0);
		if (look(fd, &after))
			is_news(&after);
	}
	file = open(self, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (file >= 0)
		close(file);
}

/* A folder's mode is set to what it is (IN_ATTRIB). false: nothing is there. */
static bool touch(int root, const char *path)
{
	struct statx facts;
	char self[64];
	int fd = open_inside(root, path);
	bool there;

	if (fd < 0)
		return false;
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	there = look(fd, &facts);
	if (there && S_ISREG(facts.stx_mode))
		touch_file(fd, self, &facts);
	if (there && S_ISDIR(facts.stx_mode))
		chmod(self, facts.stx_mode & 07777);
	close(fd);
	return there;
}

/* Of what is gone the folder that it was in is touched. */
static void touch_nearest(const char *tag, char *path)
{
	int shares = open(SHARES, O_PATH | O_CLOEXEC);
	int root = openat(shares, tag, O_PATH | O_CLOEXEC);

	close(shares);
	while (root >= 0 && !touch(root, path) && *path) {
		char *slash = strrchr(path, '/');
		*(slash ? slash : path) = 0;
	}
	if (root >= 0)
		close(root);
}

static _Noreturn void work(int from)
{
	char text[MOST + 1];
	ssize_t got;

	while ((got = recv(from, text, MOST, 0)) > 0) {
		const char *end = memchr(text, 0, (size_t)got);
		text[got] = 0;
		if (end && *text && *text != '.' && !strchr(text, '/'))
			touch_nearest(text, text + (end - text) + 1);
	}
	_exit(0);
}

void touch_changed(const uint8_t *payload, size_t length)
{
	static int to = -1;
	int pair[2];

	if (to < 0) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
			return;
		switch (fork()) {
		case 0:
			prctl(PR_SET_NAME, "gemel-touch");
			setpriority(PRIO_PROCESS, 0, 10); /* after the service */
			/* none of the sessions' pipes: someone waits for their end */
			if (dup2(pair[0], 3) < 0 || syscall(SYS_close_range, 4U, ~0U, 0U) < 0)
				_exit(1);
			work(3);
			break;
		case -1:
			close(pair[1]);
			break;
		default:
			to = pair[1];
		}
		close(pair[0]);
	}
	/* one that does not keep up misses some: that is a hint, no more */
	if (to >= 0 && length <= MOST)
		send(to, payload, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}
