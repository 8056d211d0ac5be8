/* What the guest says. All of it is hostile: whatever breaks a rule ends the VM. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sys/random.h>

#include "clock.h"
#include "relay.h"
#include "watch.h"

static void broke(struct relay *r, const char *rule)
{
    relay_fail(r, "failed", "the guest broke the protocol and was ended: %s", rule);
}

static void note_time(struct relay *r, const char *what)
{
    if (r->guest_log >= 0)
        dprintf(r->guest_log, "relay: %s after %lld ms, %lld ms of CPU time\n", what,
                (long long)(now_ms() - r->launched_at), (long long)vm_cpu_ms(r));
}

void guest_send(struct relay *r, uint32_t session, uint8_t type, uint8_t flags, const void *data,
                size_t n)
{
    struct queue *q = r->warm.holding ? &r->warm.held : &r->to_guest;
    if (r->agent >= 0 && !frame_put(q, session, type, flags, data, n))
        relay_fail(r, "failed", "the guest takes nothing any more");
}

/* The answer goes to everyone who waits for one; usage is asked for once for them all. */
void guest_ask(struct relay *r, uint8_t request, uint8_t answer)
{
    if (answer == G_USAGE && r->asked[answer])
        return;
    r->asked[answer] = true;
    guest_send(r, 0, request, 0, NULL, 0);
}

static void answer(struct relay *r, const struct frame *f, bool last)
{
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *c = &r->clients[i];
        if (c->fd < 0 || !c->asked[f->type])
            continue;
        client_send(r, c, 0, f->type, f->flags, f->payload, f->length);
        if (last)
            c->asked[f->type] = false;
    }
}

/* A list of processes comes in pieces, so who asks in the middle of one gets the next. */
static void ask_later(struct relay *r)
{
    r->asked[G_PROCESSES] = false;
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *c = &r->clients[i];
        if (c->fd < 0 || !c->later)
            continue;
        c->later = false;
        c->asked[G_PROCESSES] = true;
        if (!r->asked[G_PROCESSES])
            guest_ask(r, H_PROCESSES, G_PROCESSES);
    }
}

/* Whether so much credit is owed that it is worth a frame: the guest has the rest of its window. */
bool guest_owed(const struct relay *r)
{
    return r->service_owed >= WINDOW / 4;
}

/* Gives back the credit that the log has used up, unless someone attached cannot keep up. */
void guest_pay(struct relay *r)
{
    if (!guest_owed(r) || r->state != RUNNING || clients_stall(r))
        return;
    unsigned char raw[4];
    put_u32(raw, r->service_owed);
    r->service_out_credit += r->service_owed;
    r->service_owed = 0;
    guest_send(r, SESSION_SERVICE, H_CREDIT, 0, raw, sizeof raw);
}

static void service_output(struct relay *r, const struct frame *f)
{
    if (r->state < STARTING && warm_is_copy(r))
        return; /* the original said that, and its relay has heard it */
    if (r->state != RUNNING && !(warm_is_copy(r) && r->state == STARTING)) {
        broke(r, "output of a service that does not run");
        return;
    }
    if (f->length > r->service_out_credit) {
        broke(r, "more output than it was granted");
        return;
    }
    r->service_out_credit -= f->length;
    r->service_owed += f->length;
    if (r->state != RUNNING)
        return; /* still the original's */
    log_write(&r->log, f->type == G_STDOUT ? "stdout" : "stderr", f->payload, f->length);
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (r->clients[i].fd >= 0 && r->clients[i].attached)
            client_send(r, &r->clients[i], SESSION_SERVICE, f->type, 0, f->payload, f->length);
    guest_pay(r);
}

void guest_shut_down(struct relay *r)
{
    warm_give_up(r);
    r->state = STOPPING;
    r->kill_deadline = 0;
    r->deadline = now_ms() + r->launch.stop_ms;
    guest_send(r, 0, H_SHUTDOWN, 0, NULL, 0);
}

static void service_ended(struct relay *r, const struct frame *f)
{
    if (r->state != RUNNING || f->length != 5 || get_u32(f->payload) > 255) {
        broke(r, "an exit that cannot be");
        return;
    }
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (r->clients[i].fd >= 0 && r->clients[i].attached)
            client_send(r, &r->clients[i], SESSION_SERVICE, G_EXIT, 0, f->payload, f->length);
    relay_finish(r, (int)get_u32(f->payload), f->payload[4] != 0, "");
    guest_shut_down(r);
}

static void service_error(struct relay *r, const struct frame *f)
{
    static const char *const kinds[] = {"failed", "notfound", "notrunnable", "failed"};
    char text[1024];
    if (r->state != STARTING || !f->length) {
        broke(r, "an error that cannot be");
        return;
    }
    clean_text(text, sizeof text, f->payload + 1, f->length - 1);
    relay_fail(r, kinds[f->payload[0] < 4 ? f->payload[0] : 3], "%s", text);
}

void guest_service_runs(struct relay *r)
{
    r->state = RUNNING;
    r->deadline = 0;
    note_time(r, "the service has started");
    relay_started(r);
    watch_start(r);
    clients_pump_input(r);
}

static void service_frame(struct relay *r, const struct frame *f)
{
    uint32_t more;
    switch (f->type) {
    case G_STARTED:
        if (r->state != STARTING || warm_is_copy(r)) {
            broke(r, "a start that was not asked for");
            return;
        }
        guest_service_runs(r);
        break;
    case G_STDOUT:
    case G_STDERR:
        service_output(r, f);
        break;
    case G_EXIT:
        service_ended(r, f);
        break;
    case G_ERROR:
        service_error(r, f);
        break;
    case G_CREDIT:
        more = f->length == 4 ? get_u32(f->payload) : UINT32_MAX;
        if (more > MAX_GRANT || r->service_in_credit > MAX_GRANT - more) {
            broke(r, "credit beyond measure");
            return;
        }
        r->service_in_credit += more;
        clients_pump_input(r);
        break;
    default:
        broke(r, "a frame of the wrong session");
    }
}

/* An exec's frame goes to its client under the client's number. One that has just been closed
 * may still be spoken of. */
static void exec_frame(struct relay *r, const struct frame *f)
{
    struct session *s = session_find(r, f->session);
    bool output = f->type == G_STDOUT || f->type == G_STDERR;
    if (f->session >= r->next_session || f->type < G_STARTED || f->type > G_CREDIT) {
        broke(r, "a session that does not exist");
        return;
    }
    if (r->warm.hooking && f->session == HOOK_SESSION) {
        warm_hook(r, f);
        return;
    }
    if (!s)
        return;
    if (output) {
        if (f->length > s->out_credit) {
            broke(r, "more output than it was granted");
            return;
        }
        s->out_credit -= f->length;
    } else if (f->type == G_CREDIT) {
        uint32_t more = f->length == 4 ? get_u32(f->payload) : UINT32_MAX;
        if (more > MAX_GRANT || s->in_credit > MAX_GRANT - more) {
            broke(r, "credit beyond measure");
            return;
        }
        s->in_credit += more;
    } else if (f->type == G_EXIT || f->type == G_ERROR) {
        guest_send(r, f->session, H_CLOSE, 0, NULL, 0);
        s->used = false;
    }
    if (s->client) {
        client_send(r, s->client, s->local, f->type, 0, f->payload, f->length);
    } else if (output && s->used) { /* nobody reads it any more: it is not to wait for that */
        unsigned char raw[4];
        put_u32(raw, f->length);
        s->out_credit += f->length;
        guest_send(r, s->guest, H_CREDIT, 0, raw, sizeof raw);
    }
}

static void say(struct relay *r, const struct frame *f)
{
    clean_text(r->guest_said, sizeof r->guest_said, f->payload, f->length);
    size_t n = strlen(r->guest_said);
    if (r->guest_log < 0 || r->guest_log_size + n + 1 > GUEST_LOG_MOST)
        return;
    if (dprintf(r->guest_log, "%s\n", r->guest_said) > 0)
        r->guest_log_size += n + 1;
}

static int time_text(char *text, size_t size)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return snprintf(text, size, "%lld%09ld", (long long)now.tv_sec, now.tv_nsec);
}

static void put_record(struct queue *q, const char *key, const void *data, size_t n)
{
    unsigned char raw[4];
    queue_put(q, "\2\0", 2);
    put_u32(raw, (uint32_t)strlen(key));
    queue_put(q, raw, sizeof raw);
    queue_put(q, key, strlen(key));
    put_u32(raw, (uint32_t)n);
    queue_put(q, raw, sizeof raw);
    queue_put(q, data, n);
}

/* Once more the time: the answer tells how far it can be off, so a guest that was slow to read
 * it is told again. */
void guest_send_time(struct relay *r)
{
    struct queue q = {.limit = 256};
    char time[32];
    int n = time_text(time, sizeof time);
    put_record(&q, "time", time, (size_t)n);
    r->time_sent = now_ms();
    r->times_sent++;
    guest_send(r, 0, H_CONFIG, FLAG_LAST, q.data, queue_used(&q));
    queue_free(&q);
}

/* The clock and entropy are given at the last moment: both would be stale by now otherwise. */
void guest_put_fresh(struct relay *r, struct queue *q)
{
    unsigned char entropy[64];
    char time[32];
    int n = time_text(time, sizeof time);
    if (getrandom(entropy, sizeof entropy, 0) != sizeof entropy) {
        relay_fail(r, "failed", "no randomness to be had: %s", strerror(errno));
        return;
    }
    put_record(q, "time", time, (size_t)n);
    put_record(q, "entropy", entropy, sizeof entropy);
}

static void send_config(struct relay *r)
{
    struct queue q = {.limit = 4096};
    r->times_sent = 0;
    guest_put_fresh(r, &q);
    bool warm = warm_is_copy(r);
    guest_send(r, 0, warm ? H_IDENTITY : H_CONFIG, 0, q.data, queue_used(&q));
    queue_free(&q);
    if (!queue_put(&r->to_guest, warm ? r->launch.identity : r->launch.config,
                   warm ? r->launch.identity_length : r->launch.config_length))
        relay_fail(r, "failed", "the configuration is too large");
}

/* Starts the service, once all who are to see its output from the first byte are there. */
void guest_start(struct relay *r)
{
    long attached = 0;
    for (int i = 0; i < MAX_CLIENTS; i++)
        attached += r->clients[i].fd >= 0 && r->clients[i].attached;
    if (!r->start_due || attached < r->launch.attached)
        return;
    r->start_due = false;
    if (r->launch.idle) {
        r->state = RUNNING;
        r->deadline = 0;
        r->used_at = now_ms();
        relay_started(r);
        return;
    }
    if (warm_is_copy(r))
        warm_go(r);
    else if (!queue_put(&r->to_guest, r->launch.start, r->launch.start_length))
        relay_fail(r, "failed", "the command is too large");
}

void guest_up(struct relay *r)
{
    note_time(r, r->taken            ? "the VM that stood by is taken over"
                 : r->launch.cloning ? "the clone answers"
                                     : "the guest greets");
    r->state = CONFIGURING;
    r->deadline = now_ms() + r->launch.config_ms;
    send_config(r);
}

/* The first answer to a PING while it boots: a template is ready to be saved, a clone runs. */
static void first_pong(struct relay *r)
{
    if (r->launch.standby_fd) {
        note_time(r, "the clone answers");
        standby_rehearse(r);
    } else if (r->launch.cloning) {
        guest_up(r);
    } else if (r->launch.template && !r->saving) {
        r->saving = qmp_save(r);
    } else {
        broke(r, "an answer without a question");
    }
}

/* Whether the guest was so slow to take the time that it should be told again. */
static bool is_late(const struct relay *r)
{
    return r->times_sent < CLOCK_TRIES && now_ms() - r->time_sent > CLOCK_ERROR_MS;
}

void guest_configured(struct relay *r)
{
    r->configured = false;
    r->state = STARTING;
    note_time(r, "the guest is set up");
    if (warm_is_copy(r)) {
        r->service_out_credit = r->service_in_credit = WINDOW;
        warm_connect(r);
        return;
    }
    if (!r->launch.source || !r->launch.cloning)
        qmp_close(r);
    r->start_due = true;
    guest_start(r);
}

static void greeted(struct relay *r, const struct frame *f)
{
    if (r->state != BOOTING || r->launch.cloning || f->length < 4 || get_u32(f->payload) != PROTOCOL_VERSION) {
        broke(r, r->state == BOOTING && !r->launch.cloning ? "another version than ours" : "a second greeting");
    } else if (r->launch.template) {
        guest_send(r, 0, H_PREPARE, 0, NULL, 0);
        guest_send(r, 0, H_PING, 0, NULL, 0); /* answered, nothing of the guest is under way */
    } else if (r->launch.probe) {
        snprintf(r->last_words, sizeof r->last_words, "started %d\n", (int)r->vmm);
        r->state = DONE;
    } else {
        guest_up(r);
    }
}

/* The guest has what it was configured with, or the time. */
static void is_ready(struct relay *r)
{
    if (r->setting_clock && r->state >= RUNNING) {
        r->setting_clock = is_late(r);
        if (r->setting_clock)
            guest_send_time(r);
    } else if (r->state != CONFIGURING) {
        broke(r, "ready without being asked");
    } else if (!r->times_sent || is_late(r)) {
        guest_send_time(r);
    } else {
        r->configured = true;
        if (!r->mover)
            guest_configured(r);
    }
}

static void answered(struct relay *r, const struct frame *f)
{
    r->asked[f->type] = false;
    answer(r, f, true);
}

static void control_frame(struct relay *r, const struct frame *f)
{
    char text[1024];
    switch (f->type) {
    case G_HELLO:
        greeted(r, f);
        break;
    case G_READY:
        is_ready(r);
        break;
    case G_ERROR:
        clean_text(text, sizeof text, f->payload + (f->length > 0), f->length - (f->length > 0));
        if (r->state == CONFIGURING)
            relay_fail(r, "failed", "the guest could not be set up: %s", text);
        else
            say(r, f);
        break;
    case G_LOG:
        say(r, f);
        break;
    case G_PONG:
        if (warm_pong(r, f))
            break;
        if (r->state == BOOTING) {
            first_pong(r);
        } else if (r->state == REHEARSING) {
            note_time(r, "the clone has rehearsed");
            standby_ready(r);
        } else {
            answered(r, f);
        }
        break;
    case G_FROZEN:
        if (warm_frozen(r, f))
            break;
        clock_ask(r);
        answered(r, f);
        break;
    case G_USAGE:
        answered(r, f);
        break;
    case G_OFF: /* all is on the disks: what the kernel does to power off nobody needs */
        if (r->state == STOPPING)
            r->state = DONE;
        else
            broke(r, "an end that was not asked for");
        break;
    case G_CLOCK:
        if (!clock_answer(r, f))
            broke(r, "a time that was not asked for");
        break;
    case G_PROCESSES:
        answer(r, f, f->flags & FLAG_LAST);
        if (f->flags & FLAG_LAST)
            ask_later(r);
        break;
    default:
        broke(r, "a frame of the wrong session");
    }
}

void guest_read(struct relay *r)
{
    struct frame f;
    /* a bound on each turn, so that a flood from the guest starves nobody */
    for (int turn = 0; turn < 16 && r->state != DONE; turn++) {
        size_t before = queue_used(&r->from_guest);
        int got = queue_read(&r->from_guest, r->agent);
        bool more = queue_used(&r->from_guest) > before;
        int found;
        while (r->state != DONE && (found = frame_next(&r->from_guest, &f)) != 0) {
            if (found < 0 || f.type < G_HELLO || f.type > G_OFF) {
                broke(r, "a frame that is none");
                return;
            }
            if (f.session == SESSION_CONTROL)
                control_frame(r, &f);
            else if (f.session == SESSION_SERVICE)
                service_frame(r, &f);
            else
                exec_frame(r, &f);
            queue_take(&r->from_guest, FRAME_HEADER + f.length);
        }
        if (got <= 0 && r->agent >= 0) { /* the VMM has closed it: its end will be told of soon */
            close(r->agent);
            r->agent = -1;
            if (r->state < STOPPING)
                r->deadline = now_ms() + KILL_MS;
        }
        if (!more || r->agent < 0)
            return;
    }
}
