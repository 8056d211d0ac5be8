#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 16384, BATCH = 64 };

int log_open(struct log *log, const char *path, uint64_t limit)
{
    log->path = path;
    log->limit = limit;
    log->size = 0;
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log->fd < 0)
        return -1;
    struct stat facts;
    if (fstat(log->fd, &facts) == 0)
        log->size = (uint64_t)facts.st_size;
    return 0;
}

/* A fresh file takes the log's place: a reader sees that the inode is another. */
static void begin_anew(struct log *log)
{
    char fresh[PATH_MAX];
    if (snprintf(fresh, sizeof fresh, "%s.new", log->path) >= (int)sizeof fresh)
        return;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return; /* the old one is still there to write to */
    if (rename(fresh, log->path) != 0) {
        close(fd);
        return;
    }
    close(log->fd);
    log->fd = fd;
    log->size = 0;
}

static void write_all(struct log *log, struct iovec *parts, int count)
{
    while (count > 0) {
        ssize_t done = writev(log->fd, parts, count);
        if (done < 0) {
            if (errno == EINTR)
                continue;
            return; /* a full disk loses lines, never the service */
        }
        log->size += (uint64_t)done;
        while (count > 0 && (size_t)done >= parts->iov_len) {
            done -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= (size_t)done;
        }
    }
}

static int stamp(char *out, size_t size, const char *stream)
{
    struct timespec now;
    struct tm parts;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    return snprintf(out, size, "%s.%09ld+00:00 %s ", date, now.tv_nsec, stream);
}

void log_write(struct log *log, const char *stream, const unsigned char *text, size_t n)
{
    char head[80];
    size_t head_length = (size_t)stamp(head, sizeof head, stream);
    struct iovec parts[4 * BATCH];
    int count = 0;

    if (log->fd < 0)
        return;
    while (n) {
        if (log->limit && log->size >= log->limit)
            begin_anew(log);
        size_t look = n < LONGEST ? n : LONGEST;
        const unsigned char *end = memchr(text, '\n', look);
        size_t length = end ? (size_t)(end - text) : look;
        parts[count++] = (struct iovec){head, head_length};
        parts[count++] = (struct iovec){(void *)(end ? "F " : "P "), 2};
        parts[count++] = (struct iovec){(void *)text, length};
        parts[count++] = (struct iovec){(void *)"\n", 1};
        if (count == 4 * BATCH) {
            write_all(log, parts, count);
            count = 0;
        }
        text += length + (end != NULL);
        n -= length + (end != NULL);
    }
    write_all(log, parts, count);
}

int write_whole(const char *path, const char *text)
{
    char fresh[PATH_MAX];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -1;
    size_t length = strlen(text);
    int bad = write(fd, text, length) != (ssize_t)length || fsync(fd) != 0;
    bad |= close(fd) != 0;
    if (bad || rename(fresh, path) != 0) {
        unlink(fresh);
        return -1;
    }
    return 0;
}
