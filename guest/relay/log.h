/* The service's log in the format of Kubernetes' CRI: `TIME STREAM F|P TEXT`. */
#ifndef GEMEL_RELAY_LOG_H
#define GEMEL_RELAY_LOG_H

#include <stddef.h>
#include <stdint.h>

struct log {
    const char *path;
    int fd;
    uint64_t size, limit; /* limit 0: never begun anew */
};

/* Opens for appending. -1 with errno. */
int log_open(struct log *log, const char *path, uint64_t limit);

/* Writes output of one stream ("stdout", "stderr"). A piece without its line's end becomes a
 * P line at once: nothing is held back, so nothing is lost when the relay is killed. */
void log_write(struct log *log, const char *stream, const unsigned char *text, size_t n);

/* Writes whole or not at all; -1 with errno. */
int write_whole(const char *path, const char *text);

#endif
