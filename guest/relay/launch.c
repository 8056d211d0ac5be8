#include "launch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wire.h"

/* One record: strings in place, each ended by a 0 (put over the length of the next one). */
struct record {
    uint16_t count;
    char *text[MAX_ARGS];
    size_t length[MAX_ARGS];
};

static unsigned char *read_all(int fd, size_t *length)
{
    struct queue q = {.limit = MAX_LAUNCH};
    for (;;) {
        int got = queue_read(&q, fd);
        if (got < 0 || queue_used(&q) == q.limit)
            break;
        if (got == 0) {
            *length = queue_used(&q);
            return q.data;
        }
    }
    queue_free(&q);
    return NULL;
}

static size_t next_record(unsigned char *data, size_t n, struct record *r)
{
    if (n < 2)
        return 0;
    r->count = (uint16_t)(data[0] | data[1] << 8);
    size_t at = 2;
    if (!r->count || r->count >= MAX_ARGS)
        return 0;
    for (int i = 0; i < r->count; i++) {
        if (n - at < 4)
            return 0;
        size_t length = get_u32(data + at);
        at += 4;
        if (length > n - at)
            return 0;
        /* to the left over the length field, so that there is room for the 0 */
        memmove(data + at - 4, data + at, length);
        data[at - 4 + length] = 0;
        r->text[i] = (char *)data + at - 4;
        r->length[i] = length;
        at += length;
    }
    return at;
}

static bool number(const char *text, long most, long *out)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    return !errno && *text && !*end && *out >= 0 && *out <= most;
}

static char **copy_args(const struct record *r, int from)
{
    char **argv = calloc((size_t)(r->count - from) + 1, sizeof *argv);
    for (int i = from; argv && i < r->count; i++)
        argv[i - from] = r->text[i];
    return argv;
}

static bool take_device(struct launch *l, const struct record *r)
{
    const char *key = r->text[0];
    long fd;
    if (r->count < 2 || !number(r->text[1], 199, &fd) || fd < 3)
        return false;
    if (!strcmp(key, "agent") && r->count == 2) {
        l->agent_fd = (int)fd;
    } else if (!strcmp(key, "disk") && r->count == 4 && l->n_disks < MAX_DISKS) {
        l->disks[l->n_disks++] = (struct disk){
            (int)fd, r->text[2], strcmp(r->text[3], "ro") != 0, !strcmp(r->text[3], "alone")};
    } else if (!strcmp(key, "console") && r->count == 2) {
        l->console_fd = (int)fd;
    } else if (!strcmp(key, "qmp") && r->count == 2) {
        l->qmp_fd = (int)fd;
    } else if (!strcmp(key, "memory") && r->count == 4) {
        long memory, state;
        if (!number(r->text[2], 1 << 20, &memory) || !number(r->text[3], 1 << 20, &state))
            return false;
        l->memory_fd = (int)fd;
        l->memory_from = (int)memory;
        l->state_from = (int)state;
    } else if (!strcmp(key, "tap") && r->count == 3 && l->n_taps < MAX_TAPS) {
        l->taps[l->n_taps++] = (struct tap){(int)fd, r->text[2]};
    } else if (!strcmp(key, "share") && r->count > 5 && l->n_shares < MAX_SHARES) {
        if (strchr(r->text[3], '/') || !strcmp(r->text[3], ".") || !strcmp(r->text[3], ".."))
            return false;
        l->shares[l->n_shares++] =
            (struct share){.fd = (int)fd, .source = r->text[2], .name = r->text[3],
                           .readonly = !strcmp(r->text[4], "ro"), .argv = copy_args(r, 5)};
        return l->shares[l->n_shares - 1].argv != NULL;
    } else {
        return false;
    }
    return true;
}

static bool take_setting(struct launch *l, const struct record *r)
{
    const char *key = r->text[0];
    long value = 0;
    bool whole = r->count == 2 && number(r->text[1], LONG_MAX, &value);
    if (!strcmp(key, "uid") && whole)
        l->uid = (uid_t)value;
    else if (!strcmp(key, "gid") && whole)
        l->gid = (gid_t)value;
    else if (!strcmp(key, "group") && whole && l->n_groups < MAX_GROUPS)
        l->groups[l->n_groups++] = (gid_t)value;
    else if (!strcmp(key, "boot-ms") && whole && value <= 3600000)
        l->boot_ms = (int)value;
    else if (!strcmp(key, "boot-cpu-ms") && whole && value <= 3600000)
        l->boot_cpu_ms = (int)value;
    else if (!strcmp(key, "config-ms") && whole && value <= 3600000)
        l->config_ms = (int)value;
    else if (!strcmp(key, "clone-ms") && whole && value <= 3600000)
        l->clone_ms = (int)value;
    else if (!strcmp(key, "stop-ms") && whole && value <= 3600000)
        l->stop_ms = (int)value;
    else if (!strcmp(key, "attached") && whole && value <= 64)
        l->attached = value;
    else if (!strcmp(key, "standby") && whole && value >= 3 && value <= 1 << 20)
        l->standby_fd = (int)value;
    else if (!strcmp(key, "log-size") && whole)
        l->log_size = (uint64_t)value;
    else
        return false;
    return true;
}

static bool take(struct launch *l, const struct record *r)
{
    const char *key = r->text[0];
    if (!strcmp(key, "dir") && r->count == 2) {
        l->dir = r->text[1];
    } else if (!strcmp(key, "log") && r->count == 2) {
        l->log = r->text[1];
    } else if (!strcmp(key, "config") && r->count == 2) {
        l->config = (unsigned char *)r->text[1];
        l->config_length = r->length[1];
    } else if (!strcmp(key, "start") && r->count == 2) {
        l->start = (unsigned char *)r->text[1];
        l->start_length = r->length[1];
    } else if (!strcmp(key, "rehearsal") && r->count == 2) {
        l->rehearsal = (unsigned char *)r->text[1];
        l->rehearsal_length = r->length[1];
    } else if (!strcmp(key, "adopt") && r->count == 2) {
        l->adopt = r->text[1];
    } else if (!strcmp(key, "watch") && r->count == 2 && l->n_shares) {
        l->shares[l->n_shares - 1].tag = r->text[1];
    } else if (!strcmp(key, "probe") && r->count == 1) {
        l->probe = true;
    } else if (!strcmp(key, "template") && r->count == 1) {
        l->template = true;
    } else if (!strcmp(key, "idle") && r->count == 1) {
        l->idle = true;
    } else if (!strcmp(key, "cgroup") && r->count == 2 && l->n_cgroups < MAX_CGROUPS) {
        l->cgroups[l->n_cgroups++] = r->text[1];
    } else if (!strcmp(key, "bind") && r->count == 3 && l->n_binds < MAX_BINDS) {
        l->binds[l->n_binds++] = (struct bind){r->text[1], r->text[2]};
    } else if (!strcmp(key, "source") && r->count == 1) {
        l->source = true;
    } else if (!strcmp(key, "identity") && r->count == 2) {
        l->identity = (unsigned char *)r->text[1];
        l->identity_length = r->length[1];
    } else if (!strcmp(key, "hook") && r->count == 2) {
        l->hook = (unsigned char *)r->text[1];
        l->hook_length = r->length[1];
    } else if (!strcmp(key, "warm-disk") && r->count == 2) {
        l->warm_disk = r->text[1];
    } else if (!strcmp(key, "preload") && r->count == 2) {
        l->preload = r->text[1];
    } else if (!strcmp(key, "run") && r->count > 1 && !l->argv) {
        l->argv = copy_args(r, 1);
        return l->argv != NULL;
    } else if (!strcmp(key, "plug") && r->count == 2) {
        l->plug = r->text[1];
    } else if (!strcmp(key, "clone-run") && r->count > 1 && !l->clone_argv) {
        l->clone_argv = copy_args(r, 1);
        l->cloning = true;
        return l->clone_argv != NULL;
    } else {
        return take_device(l, r) || take_setting(l, r);
    }
    return true;
}

const char *launch_read(struct launch *launch, int fd)
{
    size_t length = 0;
    unsigned char *data = read_all(fd, &length);
    return data ? launch_parse(launch, data, length) : "what to run cannot be read";
}

const char *launch_parse(struct launch *launch, unsigned char *data, size_t length)
{
    static struct record record;
    static char wrong[128];
    size_t at = 0;
    while (at < length) {
        size_t used = next_record(data + at, length - at, &record);
        if (!used)
            return "what to run is damaged";
        if (!take(launch, &record)) {
            snprintf(wrong, sizeof wrong, "what to run has a wrong record: %.40s", record.text[0]);
            return wrong;
        }
        at += used;
    }
    if (!launch->dir || !launch->log || !launch->argv || !launch->start || launch->agent_fd < 3)
        return "what to run lacks a folder, a log, a program, a start or a channel";
    if ((launch->template || launch->cloning) && (launch->memory_fd < 3 || launch->qmp_fd < 3))
        return "what to run lacks a template's memory or control channel";
    if (launch->identity && (launch->plug || launch->source || launch->idle || launch->template))
        return "what to run is a copy of a service and something else";
    if (launch->standby_fd &&
        (!launch->cloning || launch->n_shares || launch->plug || !launch->rehearsal))
        return "what is to stand by is no clone, has shares, or nothing to rehearse";
    if (launch->cloning && launch->n_shares && !launch->plug)
        return "what to run lacks how a clone gets its shares";
    return NULL;
}
