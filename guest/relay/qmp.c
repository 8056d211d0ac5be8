/* A VMM that its guest has taken over may answer anything: lines are bounded, and of their content
 * only three words matter. The template's state travels as a descriptor, never as a path. */
#include "qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"

#define GREETING "{\"execute\":\"qmp_capabilities\"}\n"
#define SETTINGS                                                                                  \
    GREETING                                                                                      \
    "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":["                 \
    "{\"capability\":\"x-ignore-shared\",\"state\":true},"                                        \
    "{\"capability\":\"events\",\"state\":true}]}}\n"                                             \
    "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}\n"

static const char saving[] =
    SETTINGS "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"fd:state\"}}\n";
static const char restoring[] =
    SETTINGS "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:state\"}}\n";

/* All commands at once, the descriptor beside the first byte: the VMM takes them in order. */
bool qmp_command(struct relay *r, const char *text, size_t n, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.room = {0}};
    struct iovec bytes = {.iov_base = (void *)(uintptr_t)text, .iov_len = n};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    return r->qmp >= 0 && sendmsg(r->qmp, &message, MSG_NOSIGNAL) == (ssize_t)n;
}

/* A description of the file of our own, read from its beginning. */
static int open_state(const struct relay *r, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", r->launch.state_from);
    return open(path, flags | O_CLOEXEC);
}

static bool hand_over(struct relay *r, const char *text, size_t n, int flags)
{
    int fd = open_state(r, flags);
    if (fd < 0) {
        relay_fail(r, "failed", "cannot open the template's state: %s", strerror(errno));
        return false;
    }
    bool done = qmp_command(r, text, n, fd);
    if (!done)
        relay_fail(r, "failed", "cannot command the VMM: %s", strerror(errno));
    close(fd);
    return done;
}

bool qmp_save(struct relay *r)
{
    return hand_over(r, saving, sizeof saving - 1, O_WRONLY | O_TRUNC);
}

bool qmp_restore(struct relay *r)
{
    static const char greeting[] = GREETING;
    char text[4096 + sizeof restoring], links[4096] = "";
    if (warm_is_copy(r)) /* it has another's addresses until it is told its own */
        links[warm_links(r, false, links, sizeof links)] = 0;
    int n = snprintf(text, sizeof text, "%s%s%s", greeting, links, restoring + sizeof greeting - 1);
    return hand_over(r, text, (size_t)n, O_RDONLY);
}

/* All at once; the answer to the last tells that all is done, any error ends the attempt. */
void qmp_plug(struct relay *r, const char *commands)
{
    static const char done[] = "{\"execute\":\"query-name\",\"id\":\"plugged\"}\n";
    size_t n = strlen(commands);
    r->plugging = true;
    if (send(r->qmp, commands, n, MSG_NOSIGNAL) != (ssize_t)n ||
        send(r->qmp, done, sizeof done - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof done - 1))
        relay_fail(r, "failed", "cannot command the VMM: %s", strerror(errno));
}

static void take_line(struct relay *r, const char *line)
{
    if (warm_line(r, line))
        return;
    bool told = strstr(line, "\"MIGRATION\"") != NULL;
    if (strstr(line, "\"error\":") || (told && strstr(line, "\"failed\""))) {
        if (r->plugging && !r->taken)
            relay_fail(r, "failed", "the VMM takes no device while it runs: %s", line);
        else
            relay_fail(r, "failed", "the VMM refuses: %s", line);
    } else if (told && strstr(line, "\"completed\"") && r->launch.template && r->saving) {
        snprintf(r->last_words, sizeof r->last_words, "started %d\n", (int)r->vmm);
        r->state = DONE;
    } else if (told && strstr(line, "\"completed\"") && r->launch.plug && !r->plugging) {
        qmp_plug(r, r->launch.plug);
    } else if (r->plugging && strstr(line, "\"id\": \"plugged\"")) {
        if (!r->taken)
            guest_send(r, 0, H_PING, 0, NULL, 0); /* the agent has greeted the template's relay */
        else if (r->state == STANDING_BY)
            guest_up(r);
    }
}

void qmp_read(struct relay *r)
{
    size_t room = sizeof r->qmp_line - 1 - r->qmp_used;
    ssize_t got = room ? read(r->qmp, r->qmp_line + r->qmp_used, room) : -1;
    if (got < 0 && room && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        qmp_close(r); /* the VMM's end will be told of soon */
        if (!room)
            relay_fail(r, "failed", "the VMM answers without an end");
        return;
    }
    r->qmp_used += (size_t)got;
    r->qmp_line[r->qmp_used] = 0;
    char *line = r->qmp_line, *end;
    while (r->state != DONE && r->qmp >= 0 && (end = memchr(line, '\n', r->qmp_used - (size_t)(line - r->qmp_line)))) {
        *end = 0;
        take_line(r, line);
        line = end + 1;
    }
    if (r->qmp < 0)
        return; /* that was the last that matters */
    r->qmp_used -= (size_t)(line - r->qmp_line);
    memmove(r->qmp_line, line, r->qmp_used);
}

void qmp_close(struct relay *r)
{
    if (r->qmp >= 0)
        close(r->qmp);
    r->qmp = -1;
    r->qmp_used = 0;
}
