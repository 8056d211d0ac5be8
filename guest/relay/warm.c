/* The snapshot of a VM whose service runs, and the start of its copies.
 *
 * Taking one: the service is frozen; nothing more is told to the guest, and a PING's answer shows that
 * nothing is under way to or from it; the VMM saves its devices, and stands still while memory and disk
 * are copied; then it goes on, and the service too. A copy starts frozen and cut off from its networks,
 * gets its identity, is connected, runs the image's hook, and only then its service. */
#include "warm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "memory.h"
#include "relay.h"

enum { FREEZE_MS = 12000, SAVE_MS = 10000, GO_MS = 5000, GO_TRIES = 200, HOOK_MS = 10000,
       DISK_MOST = 256 << 20, PIECE = 1 << 20 };

static const char mark[] = "warm";

void warm_init(struct relay *r)
{
    r->warm = (struct warm){.memory = -1, .to_memory = -1, .to_state = -1, .to_disk = -1};
    r->warm.held.limit = GUEST_LIMIT;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_targets(struct warm *w)
{
    close_fd(&w->to_memory);
    close_fd(&w->to_state);
    close_fd(&w->to_disk);
}

void warm_end(struct relay *r)
{
    close_targets(&r->warm);
    close_fd(&r->warm.memory);
    queue_free(&r->warm.held);
    warm_init(r);
}

/* Past all that waits. */
static void tell(struct relay *r, uint8_t type, const void *data, size_t n)
{
    if (r->agent >= 0 && !frame_put(&r->to_guest, SESSION_CONTROL, type, 0, data, n))
        relay_fail(r, "failed", "the guest takes nothing any more");
}

static void let_go(struct relay *r)
{
    struct queue *held = &r->warm.held;
    r->warm.holding = false;
    if (queue_used(held) && !queue_put(&r->to_guest, held->data + held->start, queue_used(held)))
        relay_fail(r, "failed", "the guest takes nothing any more");
    queue_take(held, queue_used(held));
}

static void answer(struct relay *r)
{
    struct warm *w = &r->warm;
    size_t n = strlen(w->why);
    char text[sizeof w->why + 1] = {ERROR_FAILED};
    memcpy(text + 1, w->why, n);
    if (w->client && n)
        client_send(r, w->client, SESSION_CONTROL, G_ERROR, 0, text, n + 1);
    else if (w->client)
        client_send(r, w->client, SESSION_CONTROL, R_SAVED, 0, NULL, 0);
    w->client = NULL;
    close_targets(w);
}

/* The VM runs (again): the service goes on, whatever became of the snapshot. */
static void thaw(struct relay *r)
{
    tell(r, H_THAW, NULL, 0);
    let_go(r);
    r->warm.step = WARM_THAWING;
    r->warm.deadline = now_ms() + FREEZE_MS;
    answer(r);
}

static void note(struct warm *w, const char *what, const char *why)
{
    if (!*w->why)
        snprintf(w->why, sizeof w->why, "%s%s%s", what, *why ? ": " : "", why);
}

static bool programs_run(const struct relay *r)
{
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (r->sessions[i].used)
            return true;
    return false;
}

/* A descriptor of whoever is at the other end of the connection. */
static int borrow(const struct client *c, const unsigned char *number, int flags)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    char path[64];
    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/fd/%u", (int)peer.pid, get_u32(number));
    return open(path, flags | O_CLOEXEC);
}

const char *warm_request(struct relay *r, struct client *c, const struct frame *f)
{
    struct warm *w = &r->warm;
    if (f->length != 12)
        return "a snapshot needs three files";
    if (r->state != RUNNING || r->kill_deadline)
        return "the service does not run";
    if (w->memory < 0 || r->qmp < 0)
        return "this VM cannot be saved while it runs";
    if (w->step != WARM_IDLE || r->asked[G_FROZEN])
        return "another snapshot is being taken, or a pause begins or ends";
    if (programs_run(r))
        return "programs run in it beside the service";
    w->to_memory = borrow(c, f->payload, O_RDWR);
    w->to_state = borrow(c, f->payload + 4, O_WRONLY);
    w->to_disk = borrow(c, f->payload + 8, O_RDWR);
    if (w->to_memory < 0 || w->to_state < 0 || w->to_disk < 0) {
        close_targets(w);
        return "the files for the snapshot cannot be opened";
    }
    *w->why = 0;
    w->tries = 0;
    w->client = c;
    w->holding = true;
    w->step = WARM_FREEZING;
    w->deadline = now_ms() + FREEZE_MS;
    tell(r, H_FREEZE, NULL, 0);
    return NULL;
}

bool warm_frozen(struct relay *r, const struct frame *f)
{
    struct warm *w = &r->warm;
    bool frozen = f->length == 1 && f->payload[0] == 1;
    if (warm_is_copy(r) && r->state == STARTING && w->thawed) {
        if (frozen)
            relay_fail(r, "failed", "the service does not go on");
        else
            guest_service_runs(r);
        return true;
    }
    if (w->step == WARM_FREEZING && frozen) {
        w->step = WARM_QUIET;
        tell(r, H_PING, mark, sizeof mark);
    } else if (w->step == WARM_FREEZING) {
        note(w, "the service's processes do not stand still", "");
        thaw(r);
    } else if (w->step == WARM_THAWING) {
        w->step = WARM_IDLE;
        clock_ask(r);
    } else {
        return false;
    }
    return true;
}

static void go_on(struct relay *r)
{
    static const char text[] = "{\"execute\":\"cont\",\"id\":\"going\"}\n";
    if (r->warm.step != WARM_GOING)
        r->warm.deadline = now_ms() + GO_MS;
    r->warm.step = WARM_GOING;
    if (r->qmp < 0 || send(r->qmp, text, sizeof text - 1, MSG_NOSIGNAL) != (ssize_t)sizeof text - 1)
        relay_fail(r, "failed", "the micro VM does not go on after its snapshot: %s",
                   strerror(errno));
}

bool warm_pong(struct relay *r, const struct frame *f)
{
    static const char text[] =
        "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"warm\"}}\n"
        "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"fd:warm\"}}\n";
    struct warm *w = &r->warm;
    if (w->step != WARM_QUIET || f->length != sizeof mark || memcmp(f->payload, mark, sizeof mark))
        return false;
    if (programs_run(r) || r->state != RUNNING) {
        note(w, "programs run in it beside the service", "");
        thaw(r);
        return true;
    }
    w->step = WARM_SAVING;
    w->deadline = now_ms() + SAVE_MS;
    if (!qmp_command(r, text, sizeof text - 1, w->to_state)) {
        note(w, "cannot command the VMM", strerror(errno));
        thaw(r);
    }
    return true;
}

/* The disk is not mapped: whoever has it open could make it shorter at any time. */
static bool copy_disk(int from, int to, char *buffer)
{
    struct stat facts;
    off_t at, end, total = 0;
    if (ioctl(to, FICLONE, from) == 0)
        return true;
    if (fstat(from, &facts) != 0 || ftruncate(to, facts.st_size) != 0)
        return false;
    for (at = lseek(from, 0, SEEK_DATA); at >= 0; at = lseek(from, end, SEEK_DATA)) {
        end = lseek(from, at, SEEK_HOLE);
        while (at < end) {
            size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
            ssize_t got = pread(from, buffer, n, at);
            if (got <= 0 || pwrite(to, buffer, (size_t)got, at) != got)
                return false;
            at += got;
            total += got;
        }
        if (total > DISK_MOST) {
            errno = EFBIG;
            return false;
        }
    }
    return errno == ENXIO;
}

static bool copy_layer(const struct relay *r)
{
    const struct launch *l = &r->launch;
    for (size_t i = 0; i < l->n_disks; i++) {
        if (!l->disks[i].writable)
            continue;
        int from = open(l->disks[i].path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        char *buffer = malloc(PIECE);
        bool done = from >= 0 && buffer && copy_disk(from, r->warm.to_disk, buffer);
        int error = errno;
        free(buffer);
        if (from >= 0)
            close(from);
        errno = error;
        return done;
    }
    errno = ENODEV;
    return false;
}

/* The VMM stands still: nobody changes memory or disk. */
static void copy_all(struct relay *r)
{
    struct warm *w = &r->warm;
    int64_t began = now_ms(), copied;
    if (!memory_fill(w->memory, w->to_memory))
        note(w, "its memory cannot be copied", strerror(errno));
    copied = now_ms();
    if (!*w->why && !copy_layer(r))
        note(w, "its writable layer cannot be copied",
             errno == EFBIG ? "it holds more than 256 MiB" : strerror(errno));
    if (r->guest_log >= 0)
        dprintf(r->guest_log, "relay: memory was copied in %lld ms, the layer in %lld ms\n",
                (long long)(copied - began), (long long)(now_ms() - copied));
}

bool warm_line(struct relay *r, const char *line)
{
    struct warm *w = &r->warm;
    bool error = strstr(line, "\"error\":") != NULL;
    bool told = strstr(line, "\"MIGRATION\"") != NULL;
    if (w->step == WARM_SAVING && (error || (told && strstr(line, "\"failed\"")))) {
        note(w, "the VMM refuses", line);
        go_on(r);
    } else if (w->step == WARM_SAVING && told && strstr(line, "\"completed\"")) {
        copy_all(r);
        go_on(r);
    } else if (w->step == WARM_GOING && error) {
        struct timespec moment = {.tv_nsec = 5 * 1000 * 1000};
        if (++w->tries > GO_TRIES) {
            relay_fail(r, "failed", "the micro VM does not go on after its snapshot: %s", line);
            return true;
        }
        nanosleep(&moment, NULL); /* it has told that it is done a moment before it was */
        go_on(r);
    } else if (w->step == WARM_GOING && strstr(line, "\"id\": \"going\"")) {
        thaw(r);
    } else if (w->linking && !error && strstr(line, "\"id\": \"linked\"")) {
        w->linking = false;
        qmp_close(r);
        r->start_due = true;
        guest_start(r);
    } else if (r->state < RUNNING) {
        return false;
    }
    return true;
}

void warm_give_up(struct relay *r)
{
    struct warm *w = &r->warm;
    if (w->step == WARM_IDLE)
        return;
    note(w, "the service has ended", "");
    answer(r);
    let_go(r);
    w->step = WARM_IDLE;
}

void warm_look(struct relay *r, int64_t now)
{
    struct warm *w = &r->warm;
    if (w->step == WARM_IDLE || now < w->deadline)
        return;
    if (w->step == WARM_SAVING) {
        static const char text[] = "{\"execute\":\"migrate_cancel\"}\n";
        note(w, "the VMM does not save its state", "");
        if (r->qmp >= 0 && send(r->qmp, text, sizeof text - 1, MSG_NOSIGNAL) < 0)
            note(w, "cannot command the VMM", strerror(errno));
        go_on(r);
    } else if (w->step == WARM_GOING) {
        relay_fail(r, "failed", "the micro VM does not go on after its snapshot");
    } else if (w->step == WARM_THAWING) {
        w->step = WARM_IDLE;
    } else {
        note(w, "the guest's agent does not answer", "");
        thaw(r);
    }
}

/* --- the copy ------------------------------------------------------------------------------- */

bool warm_is_copy(const struct relay *r)
{
    return r->launch.cloning && r->launch.identity;
}

size_t warm_links(const struct relay *r, bool on, char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < r->launch.n_taps && used < size; i++)
        used += (size_t)snprintf(text + used, size - used,
                                 "{\"execute\":\"set_link\",\"arguments\":"
                                 "{\"name\":\"net%zu\",\"up\":%s}}\n",
                                 i, on ? "true" : "false");
    return used < size ? used : size - 1;
}

void warm_connect(struct relay *r)
{
    static const char done[] = "{\"execute\":\"query-name\",\"id\":\"linked\"}\n";
    char text[4096];
    size_t n = warm_links(r, true, text, sizeof text - sizeof done);
    memcpy(text + n, done, sizeof done - 1);
    n += sizeof done - 1;
    r->warm.linking = true;
    if (r->qmp < 0 || send(r->qmp, text, n, MSG_NOSIGNAL) != (ssize_t)n)
        relay_fail(r, "failed", "cannot command the VMM: %s", strerror(errno));
}

/* From here on it is the instance's own, its disk too. */
static void release(struct relay *r)
{
    const struct launch *l = &r->launch;
    for (size_t i = 0; i < l->n_disks; i++)
        if (l->disks[i].writable && l->warm_disk && rename(l->warm_disk, l->disks[i].path) != 0) {
            relay_fail(r, "failed", "cannot keep its disk: %s", strerror(errno));
            return;
        }
    r->warm.thawed = true;
    r->deadline = now_ms() + l->config_ms;
    guest_send(r, SESSION_CONTROL, H_THAW, 0, NULL, 0);
}

void warm_go(struct relay *r)
{
    const struct launch *l = &r->launch;
    if (!l->hook) {
        release(r);
        return;
    }
    r->warm.hooking = true;
    r->next_session = HOOK_SESSION + 1;
    r->deadline = now_ms() + HOOK_MS;
    if (!queue_put(&r->to_guest, l->hook, l->hook_length))
        relay_fail(r, "failed", "the hook's command is too large");
}

/* An image without one, or with a file that is no program, has none. */
static void hook_failed(struct relay *r, const struct frame *f)
{
    static const char forbidden[] = "permission denied";
    char text[256];
    clean_text(text, sizeof text, f->payload + (f->length > 0), f->length - (f->length > 0));
    size_t n = strlen(text);
    bool plain = n >= sizeof forbidden - 1 && !strcmp(text + n - sizeof forbidden + 1, forbidden);
    if (f->length && (f->payload[0] == ERROR_NOT_FOUND ||
                      (f->payload[0] == ERROR_NOT_RUNNABLE && plain)))
        release(r);
    else
        relay_fail(r, "failed", "its hook cannot be run: %s", text);
}

void warm_hook(struct relay *r, const struct frame *f)
{
    struct warm *w = &r->warm;
    unsigned char raw[4];
    switch (f->type) {
    case G_STDOUT:
    case G_STDERR:
        log_write(&r->log, f->type == G_STDOUT ? "stdout" : "stderr", f->payload, f->length);
        put_u32(raw, f->length);
        guest_send(r, HOOK_SESSION, H_CREDIT, 0, raw, sizeof raw);
        break;
    case G_EXIT:
        w->hooking = false;
        guest_send(r, HOOK_SESSION, H_CLOSE, 0, NULL, 0);
        if (f->length != 5 || get_u32(f->payload))
            relay_fail(r, "failed", "its hook ended with status %u",
                       f->length == 5 ? get_u32(f->payload) : 255);
        else
            release(r);
        break;
    case G_ERROR:
        w->hooking = false;
        hook_failed(r, f);
        break;
    }
}
