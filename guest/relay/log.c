#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 16384, OUT = 65536 };

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

static void write_all(struct log *log, const char *text, size_t n)
{
    while (n) {
        ssize_t done = write(log->fd, text, n);
        if (done < 0) {
            if (errno == EINTR)
                continue;
            return; /* a full disk loses lines, never the service */
        }
        log->size += (uint64_t)done;
        text += done;
        n -= (size_t)done;
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
    static char out[OUT];
    char head[80];
    size_t head_length = (size_t)stamp(head, sizeof head, stream);
    size_t used = 0;

    if (log->fd < 0)
        return;
    while (n) {
        size_t look = n < LONGEST ? n : LONGEST;
        const unsigned char *end = memchr(text, '\n', look);
        size_t length = end ? (size_t)(end - text) : look;
        bool full = log->limit && log->size + used >= log->limit;
        if (full || OUT - used < head_length + length + 3) {
            write_all(log, out, used);
            used = 0;
        }
        if (full)
            begin_anew(log);
        memcpy(out + used, head, head_length);
        used += head_length;
        out[used++] = end ? 'F' : 'P';
        out[used++] = ' ';
        memcpy(out + used, text, length);
        used += length;
        out[used++] = '\n';
        text += length + (end != NULL);
        n -= length + (end != NULL);
    }
    write_all(log, out, used);
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
