#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

unsigned char *queue_reserve(struct queue *q, size_t n)
{
    size_t used = queue_used(q);
    if (n > q->limit || used > q->limit - n)
        return NULL;
    if (q->size - q->end >= n)
        return q->data + q->end;
    if (used && q->start)
        memmove(q->data, q->data + q->start, used);
    q->start = 0;
    q->end = used;
    if (q->size - used < n) {
        size_t size = q->size ? q->size : 4096;
        while (size < used + n)
            size *= 2;
        unsigned char *data = realloc(q->data, size);
        if (!data)
            return NULL;
        q->data = data;
        q->size = size;
    }
    return q->data + q->end;
}

bool queue_put(struct queue *q, const void *data, size_t n)
{
    unsigned char *room = queue_reserve(q, n);
    if (!room)
        return false;
    if (n)
        memcpy(room, data, n);
    q->end += n;
    return true;
}

void queue_take(struct queue *q, size_t n)
{
    q->start += n;
    if (q->start < q->end)
        return;
    q->start = q->end = 0;
    if (q->size > 2 * FRAME_PAYLOAD_MAX) { /* an idle relay is a small one */
        free(q->data);
        q->data = NULL;
        q->size = 0;
    }
}

void queue_free(struct queue *q)
{
    free(q->data);
    q->data = NULL;
    q->start = q->end = q->size = 0;
}

int queue_read(struct queue *q, int fd)
{
    size_t want = 65536;
    if (want > q->limit - queue_used(q))
        want = q->limit - queue_used(q);
    if (!want)
        return 1;
    unsigned char *room = queue_reserve(q, want);
    if (!room)
        return -1;
    ssize_t got = read(fd, room, want);
    if (got > 0)
        q->end += (size_t)got;
    if (got >= 0)
        return got > 0;
    return errno == EAGAIN || errno == EINTR ? 1 : -1;
}

bool queue_write(struct queue *q, int fd)
{
    while (queue_used(q)) {
        ssize_t done = send(fd, q->data + q->start, queue_used(q), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0)
            return errno == EAGAIN || errno == EINTR;
        queue_take(q, (size_t)done);
    }
    return true;
}

uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void put_u32(unsigned char *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(value >> 8 * i);
}

bool frame_put(struct queue *q, uint32_t session, uint8_t type, uint8_t flags, const void *data,
               size_t n)
{
    unsigned char *room = queue_reserve(q, FRAME_HEADER + n);
    if (!room)
        return false;
    put_u32(room, (uint32_t)n);
    put_u32(room + 4, session);
    room[8] = type;
    room[9] = flags;
    room[10] = room[11] = 0;
    if (n)
        memcpy(room + FRAME_HEADER, data, n);
    q->end += FRAME_HEADER + n;
    return true;
}

int frame_next(const struct queue *q, struct frame *f)
{
    if (queue_used(q) < FRAME_HEADER)
        return 0;
    const unsigned char *head = q->data + q->start;
    f->length = get_u32(head);
    f->session = get_u32(head + 4);
    f->type = head[8];
    f->flags = head[9];
    f->payload = head + FRAME_HEADER;
    if (f->length > FRAME_PAYLOAD_MAX || head[10] || head[11])
        return -1;
    return queue_used(q) >= FRAME_HEADER + (size_t)f->length;
}

void clean_text(char *out, size_t size, const unsigned char *text, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n && at + 1 < size; i++)
        out[at++] = text[i] >= 32 && text[i] != 127 ? (char)text[i] : ' ';
    while (at && out[at - 1] == ' ')
        at--;
    out[at] = 0;
}
