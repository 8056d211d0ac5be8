/* The engine's connections. Trusted to be an engine, but never to be quick or to stay. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"

struct session *session_find(struct relay *r, uint32_t guest)
{
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (r->sessions[i].used && r->sessions[i].guest == guest)
            return &r->sessions[i];
    return NULL;
}

static struct session *session_of(struct relay *r, const struct client *c, uint32_t local)
{
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (r->sessions[i].used && r->sessions[i].client == c && r->sessions[i].local == local)
            return &r->sessions[i];
    return NULL;
}

void client_accept(struct relay *r)
{
    int fd = accept4(r->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *c = &r->clients[i];
        if (c->fd >= 0)
            continue;
        memset(c, 0, sizeof *c);
        c->fd = fd;
        c->in.limit = 4 * FRAME_PAYLOAD_MAX;
        c->out.limit = CLIENT_LIMIT;
        c->input.limit = MAX_GRANT;
        c->message.limit = MESSAGE_MAX;
        c->moved_at = now_ms();
        return;
    }
    close(fd); /* too many: it may come again */
}

void client_drop(struct relay *r, struct client *c)
{
    if (c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
    if (r->warm.client == c)
        r->warm.client = NULL;
    for (int i = 0; i < MAX_SESSIONS; i++) {
        struct session *s = &r->sessions[i];
        if (!s->used || s->client != c)
            continue;
        /* as under Docker: the program goes on, with nobody at its other end */
        unsigned char raw[4];
        s->client = NULL;
        put_u32(raw, WINDOW - (s->out_credit < WINDOW ? s->out_credit : WINDOW));
        s->out_credit += get_u32(raw);
        guest_send(r, s->guest, H_CREDIT, 0, raw, sizeof raw);
        guest_send(r, s->guest, H_STDIN_EOF, 0, NULL, 0);
    }
    r->used_at = now_ms();
    queue_free(&c->in);
    queue_free(&c->out);
    queue_free(&c->input);
    queue_free(&c->message);
}

void client_send(struct relay *r, struct client *c, uint32_t session, uint8_t type, uint8_t flags,
                 const void *data, size_t n)
{
    (void)r;
    if (c->closing)
        return;
    if (!queue_used(&c->out))
        c->moved_at = now_ms();
    if (!frame_put(&c->out, session, type, flags, data, n))
        c->closing = true; /* it has not read 8 MB: dropped at the end of this turn */
}

static void refuse(struct relay *r, struct client *c, uint32_t local, const char *text)
{
    unsigned char raw[128] = {ERROR_FAILED};
    size_t n = strlen(text);
    memcpy(raw + 1, text, n);
    client_send(r, c, local, G_ERROR, 0, raw, n + 1);
}

/* An EXEC goes on only when it is whole, since two may not be mixed on their way. */
static void start_exec(struct relay *r, struct client *c, const struct frame *f)
{
    if (f->session < 2 || session_of(r, c, f->session) ||
        !queue_put(&c->message, f->payload, f->length)) {
        c->closing = true;
        return;
    }
    if (!(f->flags & FLAG_LAST))
        return;
    struct session *s = NULL;
    for (int i = 0; i < MAX_SESSIONS && !s; i++)
        if (!r->sessions[i].used)
            s = &r->sessions[i];
    if (r->state != RUNNING || !s) {
        refuse(r, c, f->session, s ? "the service does not run" : "too many programs at once");
        queue_take(&c->message, queue_used(&c->message));
        return;
    }
    *s = (struct session){true, r->next_session++, f->session, c, WINDOW, WINDOW};
    while (queue_used(&c->message)) {
        size_t n = queue_used(&c->message);
        if (n > FRAME_PAYLOAD_MAX)
            n = FRAME_PAYLOAD_MAX;
        bool last = n == queue_used(&c->message);
        guest_send(r, s->guest, H_EXEC, last ? FLAG_LAST : 0, c->message.data + c->message.start,
                   n);
        queue_take(&c->message, n);
    }
}

static void exec_frame(struct relay *r, struct client *c, const struct frame *f)
{
    struct session *s = session_of(r, c, f->session);
    if (!s)
        return; /* has ended meanwhile */
    if (f->type == H_STDIN) {
        if (f->length > s->in_credit) {
            c->closing = true;
            return;
        }
        s->in_credit -= f->length;
    } else if (f->type == H_CREDIT) {
        uint32_t more = f->length == 4 ? get_u32(f->payload) : UINT32_MAX;
        if (more > MAX_GRANT || s->out_credit > MAX_GRANT - more) {
            c->closing = true;
            return;
        }
        s->out_credit += more;
    } else if (f->type == H_CLOSE) {
        s->used = false;
    }
    guest_send(r, s->guest, f->type, f->flags, f->payload, f->length);
}

static void service_frame(struct relay *r, struct client *c, const struct frame *f)
{
    switch (f->type) {
    case R_ATTACH:
        c->attached = true;
        guest_start(r);
        c->input_credit = WINDOW;
        client_send(r, c, SESSION_SERVICE, R_ATTACHED, 0, NULL, 0);
        break;
    case H_CLOSE:
        c->attached = false;
        break;
    case H_STDIN:
        if (!c->attached || f->length > c->input_credit ||
            !queue_put(&c->input, f->payload, f->length)) {
            c->closing = true;
            return;
        }
        c->input_credit -= f->length;
        break;
    case H_STDIN_EOF:
        c->stdin_ended = c->attached;
        break;
    case H_CREDIT: /* what is attached is slowed by its socket alone */
        break;
    default: /* RESIZE, SIGNAL */
        if (r->state == RUNNING)
            guest_send(r, SESSION_SERVICE, f->type, f->flags, f->payload, f->length);
    }
}

static void control_frame(struct relay *r, struct client *c, const struct frame *f)
{
    static const struct { uint8_t request, answer; } pairs[] = {
        {H_PING, G_PONG}, {H_USAGE, G_USAGE}, {H_FREEZE, G_FROZEN}, {H_THAW, G_FROZEN},
        {H_PROCESSES, G_PROCESSES}};
    if (f->type == R_KILL) {
        relay_kill(r);
        return;
    }
    if (f->type == R_SAVE) {
        const char *why = warm_request(r, c, f);
        if (why)
            refuse(r, c, 0, why);
        return;
    }
    bool pauses = f->type == H_FREEZE || f->type == H_THAW;
    if (pauses && r->warm.step != WARM_IDLE) {
        refuse(r, c, 0, "a snapshot is being taken");
        return;
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i].request != f->type)
            continue;
        if (r->state != RUNNING) {
            refuse(r, c, 0, "the service does not run");
            return;
        }
        if (f->type == H_PROCESSES && r->asked[G_PROCESSES]) {
            c->later = true;
            return;
        }
        c->asked[pairs[i].answer] = true;
        guest_ask(r, f->type, pairs[i].answer);
        return;
    }
    c->closing = true;
}

static void take(struct relay *r, struct client *c, const struct frame *f)
{
    bool known = (f->type >= H_EXEC && f->type <= H_CREDIT) || f->type == H_CLOSE;
    if (f->session == SESSION_CONTROL)
        control_frame(r, c, f);
    else if (!known && f->type != R_ATTACH)
        c->closing = true;
    else if (f->type == H_EXEC)
        start_exec(r, c, f);
    else if (f->session == SESSION_SERVICE)
        service_frame(r, c, f);
    else
        exec_frame(r, c, f);
}

void client_read(struct relay *r, struct client *c)
{
    struct frame f;
    int found = 0;
    int got = queue_read(&c->in, c->fd);
    while (!c->closing && (found = frame_next(&c->in, &f)) > 0) {
        take(r, c, &f);
        queue_take(&c->in, FRAME_HEADER + f.length);
    }
    if (got <= 0 || found < 0)
        c->closing = true;
    clients_pump_input(r);
}

/* Moves standard input on as far as the guest takes it, from all who are attached. */
void clients_pump_input(struct relay *r)
{
    for (int i = 0; i < MAX_CLIENTS && r->state == RUNNING; i++) {
        struct client *c = &r->clients[i];
        if (c->fd < 0)
            continue;
        while (queue_used(&c->input) && r->service_in_credit) {
            size_t n = queue_used(&c->input);
            if (n > FRAME_PAYLOAD_MAX)
                n = FRAME_PAYLOAD_MAX;
            if (n > r->service_in_credit)
                n = r->service_in_credit;
            guest_send(r, SESSION_SERVICE, H_STDIN, 0, c->input.data + c->input.start, n);
            queue_take(&c->input, n);
            r->service_in_credit -= (uint32_t)n;
            c->input_credit += (uint32_t)n;
            unsigned char raw[4];
            put_u32(raw, (uint32_t)n);
            client_send(r, c, SESSION_SERVICE, G_CREDIT, 0, raw, sizeof raw);
        }
        if (c->stdin_ended && !queue_used(&c->input)) {
            c->stdin_ended = false;
            guest_send(r, SESSION_SERVICE, H_STDIN_EOF, 0, NULL, 0);
        }
    }
}

/* Whether an attached client has so much to read that the service should wait for it. It is
 * given STALL_MS without any progress, then it is dropped. */
bool clients_stall(struct relay *r)
{
    bool stall = false;
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *c = &r->clients[i];
        if (c->fd < 0 || !c->attached || queue_used(&c->out) < ATTACH_BACKLOG)
            continue;
        if (now_ms() - c->moved_at > STALL_MS)
            c->closing = true;
        else
            stall = true;
    }
    return stall;
}

void clients_flush(struct relay *r)
{
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *c = &r->clients[i];
        if (c->fd < 0)
            continue;
        size_t before = queue_used(&c->out);
        if (before && !queue_write(&c->out, c->fd))
            c->closing = true;
        if (queue_used(&c->out) < before)
            c->moved_at = now_ms();
        if (c->closing)
            client_drop(r, c);
    }
}
