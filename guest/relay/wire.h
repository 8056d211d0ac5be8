/* Frames, byte queues and records: everything that is read from others is bounded here. */
#ifndef GEMEL_RELAY_WIRE_H
#define GEMEL_RELAY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../agent/protocol.h"

enum { MAX_GRANT = 4 * WINDOW, HOOK_SESSION = 2 };

/* Frames that the engine and the relay alone speak. */
enum relay_frame {
    R_ATTACH = 32, /* session 1: send me the service's output from now on */
    R_KILL = 33,   /* session 0: end the service and the VM */
    R_SAVE = 34,   /* session 0: u32s, my descriptors for memory, state and disk of a snapshot */
    R_ATTACHED = 96,
    R_SAVED = 97,
};

/* A first-in first-out queue of bytes that grows up to its limit. */
struct queue {
    unsigned char *data;
    size_t start, end, size, limit;
};

struct frame {
    uint32_t length, session;
    uint8_t type, flags;
    const unsigned char *payload;
};

static inline size_t queue_used(const struct queue *q) { return q->end - q->start; }

/* Room for n more bytes at the end; NULL when that would pass the limit. */
unsigned char *queue_reserve(struct queue *q, size_t n);
bool queue_put(struct queue *q, const void *data, size_t n);
void queue_take(struct queue *q, size_t n);
void queue_free(struct queue *q);

/* Reads once from fd. 1: got bytes, or none now; 0: the end; -1: an error. */
int queue_read(struct queue *q, int fd);
/* Writes what fd takes now. false: the other side is gone. */
bool queue_write(struct queue *q, int fd);

bool frame_put(struct queue *q, uint32_t session, uint8_t type, uint8_t flags, const void *data,
               size_t n);
/* 1: *f is the next frame (take FRAME_HEADER + length after use); 0: not whole yet; -1: illegal. */
int frame_next(const struct queue *q, struct frame *f);

uint32_t get_u32(const unsigned char *p);
void put_u32(unsigned char *p, uint32_t value);

/* Copies text of others with control characters replaced; out is always ended by a 0. */
void clean_text(char *out, size_t size, const unsigned char *text, size_t n);

#endif
