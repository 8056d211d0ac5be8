#include "link.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol.h"
#include "util.h"

#define IN_SIZE (FRAME_HEADER + FRAME_PAYLOAD_MAX)

struct link {
	int fd;
	bool hung;
	uint8_t *in;
	size_t in_length;
	uint8_t *out;
	size_t out_start, out_end, out_size;
};

/* /dev path of the port of this name, looked up in sysfs. */
static bool find_port(const char *name, char *path, size_t size)
{
	DIR *folder = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	char file[320], text[64];
	bool found = false;

	if (!folder)
		return false;
	while (!found && (entry = readdir(folder))) {
		snprintf(file, sizeof file, "/sys/class/virtio-ports/%s/name", entry->d_name);
		if (entry->d_name[0] == '.' || get_file(file, text, sizeof text) <= 0)
			continue;
		text[strcspn(text, "\n")] = 0;
		found = strcmp(text, name) == 0;
		if (found)
			snprintf(path, size, "/dev/%s", entry->d_name);
	}
	closedir(folder);
	return found;
}

struct link *link_open(const char *name, int deadline_ms)
{
	struct link *link = must_alloc(sizeof *link);
	int64_t end = now_ms() + deadline_ms;
	char path[320];

	link->in = must_alloc(IN_SIZE);
	link->fd = -1;
	while (link->fd < 0) {
		if (find_port(name, path, sizeof path))
			link->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (link->fd < 0 && now_ms() > end)
			give_up("no port named %s", name);
		if (link->fd < 0)
			usleep(1000);
	}
	return link;
}

int link_fd(const struct link *link)
{
	return link->fd;
}

short link_events(const struct link *link)
{
	if (link->hung)
		return 0;
	return (short)(POLLIN | (link->out_end > link->out_start ? POLLOUT : 0));
}

bool link_hung(const struct link *link)
{
	return link->hung;
}

bool link_full(const struct link *link)
{
	return link->out_end - link->out_start > LINK_HIGH;
}

void link_flush(struct link *link)
{
	while (link->out_end > link->out_start) {
		size_t wanted = link->out_end - link->out_start;
		ssize_t done = write(link->fd, link->out + link->out_start,
				     wanted < LINK_WRITE ? wanted : LINK_WRITE);
		if (done <= 0)
			return;
		link->out_start += (size_t)done;
	}
	link->out_start = link->out_end = 0;
}

/* Takes whole frames off the front of what was read. */
static bool take_frames(struct link *link, void (*take)(const struct frame *frame))
{
	size_t start = 0;
	struct frame frame;
	long size;

	while ((size = frame_parse(link->in + start, link->in_length - start, &frame)) > 0) {
		take(&frame);
		start += (size_t)size;
	}
	memmove(link->in, link->in + start, link->in_length - start);
	link->in_length -= start;
	return size == 0;
}

bool link_ready(struct link *link, short seen, void (*take)(const struct frame *frame))
{
	link->hung = (seen & POLLHUP) && !(seen & POLLIN);
	if (seen & POLLIN) {
		ssize_t done = read(link->fd, link->in + link->in_length, IN_SIZE - link->in_length);
		if (done > 0) {
			link->in_length += (size_t)done;
			if (!take_frames(link, take))
				return false;
		}
	}
	if (!link->hung)
		link_flush(link);
	return true;
}

static void reserve(struct link *link, size_t more)
{
	if (link->out_start > 0) {
		memmove(link->out, link->out + link->out_start, link->out_end - link->out_start);
		link->out_end -= link->out_start;
		link->out_start = 0;
	}
	if (link->out_size - link->out_end < more) {
		link->out_size = link->out_end + more + LINK_HIGH;
		link->out = realloc(link->out, link->out_size);
		if (!link->out)
			give_up("out of memory");
	}
}

uint8_t *link_room(struct link *link, size_t length)
{
	if (link->out_size - link->out_end < FRAME_HEADER + length)
		reserve(link, FRAME_HEADER + length);
	return link->out + link->out_end + FRAME_HEADER;
}

void link_commit(struct link *link, uint32_t session, uint8_t type, uint8_t flags, size_t length)
{
	frame_header(link->out + link->out_end, session, type, flags, (uint32_t)length);
	link->out_end += FRAME_HEADER + length;
}

void link_send(struct link *link, uint32_t session, uint8_t type, uint8_t flags, const void *data,
	       size_t length)
{
	uint8_t *room = link_room(link, length);

	if (length)
		memcpy(room, data, length);
	link_commit(link, session, type, flags, length);
}

void link_log(struct link *link, const char *format, ...)
{
	char line[512];
	va_list values;
	int length;

	va_start(values, format);
	length = vsnprintf(line, sizeof line, format, values);
	va_end(values);
	if (length > (int)sizeof line - 1)
		length = (int)sizeof line - 1;
	if (length > 0)
		link_send(link, SESSION_CONTROL, G_LOG, 0, line, (size_t)length);
}

void link_drain(struct link *link, int deadline_ms)
{
	int64_t end = now_ms() + deadline_ms;

	while (link->out_end > link->out_start && now_ms() < end) {
		struct pollfd wait = {link->fd, POLLOUT, 0};
		poll(&wait, 1, 20);
		link_flush(link);
	}
}
