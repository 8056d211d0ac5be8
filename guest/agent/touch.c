/* In a process of its own: a file server that hangs must not hold the agent up. */
#include "touch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config.h"

enum { MOST = 4096 };

static int open_inside(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};

	return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
}

/* The mode as the host has it now, not as it was seen last. false: it is gone. */
static bool look(int fd, mode_t *mode)
{
	struct statx facts;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_MODE | STATX_NLINK,
		  &facts) < 0 ||
	    facts.stx_nlink == 0)
		return false;
	*mode = facts.stx_mode;
	return true;
}

/* Its own mode anew (IN_ATTRIB), and a file opened for writing and closed (IN_CLOSE_WRITE):
 * neither changes the content nor a time that tools look at. false: it is not there. */
static bool touch(int root, const char *path)
{
	char self[64];
	mode_t mode;
	int file, fd = open_inside(root, path);

	if (fd < 0)
		return false;
	if (!look(fd, &mode)) {
		close(fd);
		return false;
	}
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (S_ISREG(mode) || S_ISDIR(mode))
		chmod(self, mode & 07777);
	if (S_ISREG(mode)) {
		file = open(self, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (file >= 0)
			close(file);
	}
	close(fd);
	return true;
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
