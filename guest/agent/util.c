#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

bool list_add(struct list *list, char *owned)
{
	char **grown;

	if (!owned)
		return false;
	grown = realloc(list->at, (list->count + 2) * sizeof *grown);
	if (!grown) {
		free(owned);
		return false;
	}
	list->at = grown;
	list->at[list->count++] = owned;
	list->at[list->count] = NULL;
	return true;
}

void list_free(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->at[i]);
	free(list->at);
	list->at = NULL;
	list->count = 0;
}

void *must_alloc(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory)
		give_up("out of memory");
	return memory;
}

int put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t done;
	int saved;

	if (fd < 0)
		return -1;
	done = write(fd, text, strlen(text));
	saved = errno;
	close(fd);
	errno = saved;
	return done < 0 ? -1 : 0;
}

long get_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t done = 0;

	out[0] = 0;
	if (fd < 0)
		return -1;
	while (length < size - 1 && (done = read(fd, out + length, size - 1 - length)) > 0)
		length += (size_t)done;
	close(fd);
	out[length] = 0;
	return done < 0 ? -1 : (long)length;
}

char *get_whole(const char *path, size_t most, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat about;
	char *content = NULL;

	*length = 0;
	if (fd < 0)
		return NULL;
	if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && (size_t)about.st_size <= most &&
	    (content = malloc((size_t)about.st_size + 1))) {
		ssize_t done;
		while (*length < (size_t)about.st_size &&
		       (done = read(fd, content + *length, (size_t)about.st_size - *length)) > 0)
			*length += (size_t)done;
		content[*length] = 0;
	}
	close(fd);
	return content;
}

bool make_folders(const char *path, unsigned mode)
{
	char copy[4096];
	size_t length = strlen(path);

	if (length >= sizeof copy)
		return false;
	memcpy(copy, path, length + 1);
	for (char *at = copy + 1; *at; at++)
		if (*at == '/') {
			*at = 0;
			if (mkdir(copy, mode) < 0 && errno != EEXIST)
				return false;
			*at = '/';
		}
	return mkdir(copy, mode) == 0 || errno == EEXIST;
}

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void vsay(const char *format, va_list values)
{
	char line[512];
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	snprintf(line, sizeof line, "<4>gemel: ");
	vsnprintf(line + 10, sizeof line - 10, format, values);
	if (fd >= 0) {
		if (write(fd, line, strlen(line)) < 0)
			fd = fd; /* nowhere left to tell it */
		close(fd);
	}
}

bool cannot(char *error, size_t size, const char *what, const char *which)
{
	snprintf(error, size, "cannot %s %s: %s", what, which, strerror(errno));
	return false;
}

void say(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vsay(format, values);
	va_end(values);
}

void give_up(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vsay(format, values);
	va_end(values);
	sync();
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	_exit(125);
}
