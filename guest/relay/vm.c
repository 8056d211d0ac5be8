/* The life of the VMM's processes. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "memory.h"
#include "relay.h"
#include "standbynet.h"
#include "watch.h"

struct opened {
    struct placed fds[MAX_PLACED];
    size_t n;
};

static void keep(struct opened *o, int from, int to)
{
    o->fds[o->n++] = (struct placed){from, to};
}

/* own: makes it, for a template, which is connected to nothing. */
static int open_tap(const char *name, bool own)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (strlen(name) >= sizeof request.ifr_name || (!own && !if_nametoindex(name))) {
        errno = ENODEV; /* opening a tap that is not there would make one, on no bridge */
        return -1;
    }
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    memcpy(request.ifr_name, name, strlen(name));
    if (ioctl(fd, TUNSETIFF, &request) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static bool open_devices(struct relay *r, struct opened *o)
{
    const struct launch *l = &r->launch;
    for (size_t i = 0; i < l->n_disks; i++) {
        int flags = (l->disks[i].writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
        bool warm = l->disks[i].writable && l->warm_disk && warm_is_copy(r);
        int fd = open(warm ? l->warm_disk : l->disks[i].path, flags);
        if (fd < 0) {
            relay_fail(r, "failed", "cannot open %s: %s", l->disks[i].path, strerror(errno));
            return false;
        }
        keep(o, fd, l->disks[i].fd);
        if (l->disks[i].alone && flock(fd, LOCK_EX | LOCK_NB) != 0) { /* the VMM keeps it, too */
            relay_fail(r, "failed", "another micro VM uses the block volume %s",
                       l->disks[i].path);
            return false;
        }
    }
    for (size_t i = 0; i < l->n_taps; i++) {
        int fd = open_tap(l->taps[i].name, l->template || l->standby_fd);
        if (fd < 0) {
            relay_fail(r, "failed", "cannot open the tap %s: %s", l->taps[i].name,
                       strerror(errno));
            return false;
        }
        keep(o, fd, l->taps[i].fd);
        if (l->standby_fd && (r->taps[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0) {
            relay_fail(r, "failed", "cannot keep a tap: %s", strerror(errno));
            return false;
        }
    }
    return !l->standby_fd || standbynet_open(r);
}

/* A file server takes a listening socket. We connect to it ourselves and hand the connection to
 * the VMM, which so needs neither the path nor to wait for anyone. */
static int connect_share(struct relay *r, size_t index, int error_fd, char *why, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "share.sock"};
    int connection = -1;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(address.sun_path);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 1) != 0) {
        snprintf(why, size, "cannot listen: %s", strerror(errno));
        goto out;
    }
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0) {
        snprintf(why, size, "cannot connect: %s", strerror(errno));
        goto drop;
    }
    pid_t pid = start_share(&r->launch, index, listener, error_fd, why, size);
    if (pid > 0) {
        r->shares[index] = pid;
        goto out;
    }
drop:
    if (connection >= 0)
        close(connection);
    connection = -1;
out:
    if (listener >= 0)
        close(listener);
    unlink(address.sun_path);
    return connection;
}

static bool start_shares(struct relay *r, struct opened *o, int error_fd)
{
    char why[512];
    for (size_t i = 0; i < r->launch.n_shares; i++) {
        int fd = connect_share(r, i, error_fd, why, sizeof why);
        if (fd < 0) {
            relay_fail(r, "failed", "cannot share %s: %s", r->launch.shares[i].source, why);
            return false;
        }
        keep(o, fd, r->launch.shares[i].fd);
    }
    return true;
}

/* What templates and clones have besides: the memory's file and the control channel. File servers
 * map the guest's memory too, so a clone with shares has a copy of the template's for its own, and
 * so has one that is to be saved while its service runs. */
static bool open_control(struct relay *r, struct opened *o)
{
    int pair[2];
    bool own = r->launch.cloning && (r->launch.n_shares || r->launch.source);
    int memory = own
                     ? memory_copy(r->launch.memory_from)
                     : fcntl(r->launch.memory_from, F_DUPFD_CLOEXEC, 3);
    if (memory < 0) {
        relay_fail(r, "failed", "the template's memory is not there: %s", strerror(errno));
        return false;
    }
    keep(o, memory, r->launch.memory_fd);
    if (own && r->launch.source)
        r->warm.memory = fcntl(memory, F_DUPFD_CLOEXEC, 3);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        relay_fail(r, "failed", "cannot make the VMM's control channel: %s", strerror(errno));
        return false;
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    r->qmp = pair[0];
    keep(o, pair[1], r->launch.qmp_fd);
    return true;
}

/* Where the guest's kernel says what has gone wrong. */
static bool open_console(struct relay *r, struct opened *o)
{
    int ends[2];
    console_close(&r->console);
    *r->console.said = 0;
    if (!r->launch.console_fd)
        return true;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        relay_fail(r, "failed", "cannot make the guest's console: %s", strerror(errno));
        return false;
    }
    r->console.fd = ends[0];
    keep(o, ends[1], r->launch.console_fd);
    return true;
}

static void launch_with(struct relay *r, struct opened *o, int error_fd)
{
    int pair[2];
    char why[512];
    if (!open_devices(r, o) || !start_shares(r, o, error_fd))
        return;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        relay_fail(r, "failed", "cannot make the agent's channel: %s", strerror(errno));
        return;
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    r->agent = pair[0];
    keep(o, pair[1], r->launch.agent_fd);
    if (!open_console(r, o))
        return;
    if ((r->launch.cloning || r->launch.template) && !open_control(r, o))
        return;
    r->vmm = start_vmm(&r->launch, o->fds, o->n, error_fd, why, sizeof why);
    if (r->vmm < 0) {
        r->vmm = 0;
        relay_fail(r, "failed", "%s", why);
        return;
    }
    r->state = BOOTING;
    r->deadline = now_ms() + (r->launch.cloning ? r->launch.clone_ms : r->launch.boot_ms);
    r->launched_at = now_ms();
    r->cpu_before = 0;
    r->attempts++;
    if (r->launch.cloning && qmp_restore(r) && !r->launch.plug)
        guest_send(r, 0, H_PING, 0, NULL, 0); /* the agent has greeted the template's relay */
}

void vm_launch(struct relay *r)
{
    struct opened opened = {.n = 0};
    int errors[2];
    if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) != 0) {
        relay_fail(r, "failed", "cannot make a pipe: %s", strerror(errno));
        return;
    }
    r->errors = errors[0];
    r->service_out_credit = r->service_in_credit = WINDOW;
    r->service_owed = 0;
    launch_with(r, &opened, errors[1]);
    for (size_t i = 0; i < opened.n; i++)
        close(opened.fds[i].from);
    close(errors[1]);
}

/* CPU time that the VMM has used, in ms, since it was started or taken over. */
int64_t vm_cpu_ms(const struct relay *r)
{
    clockid_t clock;
    struct timespec used;
    if (!r->vmm || clock_getcpuclockid(r->vmm, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return used.tv_sec * 1000LL + used.tv_nsec / 1000000 - r->cpu_before;
}

void vm_hear_errors(struct relay *r)
{
    char text[4096];
    ssize_t got = read(r->errors, text, sizeof text);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        close(r->errors);
        r->errors = -1;
        return;
    }
    size_t used = strlen(r->error_tail), room = sizeof r->error_tail - 1;
    size_t n = (size_t)got;
    const char *from = text;
    if (n > room) {
        from += n - room;
        n = room;
    }
    if (used + n > room) {
        memmove(r->error_tail, r->error_tail + (used + n - room), room - n);
        used = room - n;
    }
    for (size_t i = 0; i < n; i++)
        r->error_tail[used + i] = from[i] == '\n' ? ';' : from[i] < 32 ? ' ' : from[i];
    r->error_tail[used + n] = 0;
}

void vm_hear_console(struct relay *r)
{
    size_t room = GUEST_LOG_MOST - r->guest_log_size, left = room;
    console_read(&r->console, r->guest_log, &left);
    r->guest_log_size += room - left;
}

static void ended(struct relay *r, pid_t pid)
{
    if (r->errors >= 0)
        vm_hear_errors(r);
    for (int i = 0; i < 16 && pid == r->vmm && r->console.fd >= 0; i++) /* what a pipe holds */
        vm_hear_console(r);
    if (pid == r->vmm) {
        r->vmm = 0;
        if (r->agent >= 0)
            guest_read(r); /* what it said last may be how the service ended */
        if (r->state == STOPPING)
            r->state = DONE;
        else if (r->state != DONE)
            relay_fail(r, "failed", "the micro VM ended by itself%s%s%s%s%s%s",
                       *r->console.said ? ": " : "", r->console.said,
                       *r->error_tail ? ": " : "", r->error_tail,
                       *r->guest_said ? "; the guest said: " : "", r->guest_said);
        return;
    }
    for (size_t i = 0; i < r->launch.n_shares; i++) {
        if (pid != r->shares[i])
            continue;
        r->shares[i] = 0;
        if (r->state < STOPPING && r->vmm)
            relay_fail(r, "failed", "the file server of %s ended: %s", r->launch.shares[i].source,
                       r->error_tail);
    }
}

void vm_reap(struct relay *r)
{
    pid_t pid;
    int status;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (!standby_moved(r, pid, status))
            ended(r, pid);
}

/* Kills whatever runs still, and waits for it: 3 s at most. */
void vm_end(struct relay *r)
{
    sigset_t child;
    struct timespec moment = {.tv_nsec = 20 * 1000 * 1000};
    int64_t until = now_ms() + 3000;
    watch_end(r);
    if (r->vmm)
        kill(r->vmm, SIGKILL);
    for (size_t i = 0; i < r->launch.n_shares; i++)
        if (r->shares[i])
            kill(r->shares[i], SIGKILL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if ((pid < 0 && errno == ECHILD) || now_ms() > until)
            break;
        if (pid == 0)
            sigtimedwait(&child, NULL, &moment);
    }
    r->vmm = 0;
    memset(r->shares, 0, sizeof r->shares);
    if (r->agent >= 0)
        close(r->agent);
    if (r->errors >= 0)
        close(r->errors);
    r->agent = r->errors = -1;
    console_close(&r->console);
    qmp_close(r);
    warm_end(r);
    r->saving = r->plugging = r->configured = false;
    r->mover = 0;
    queue_take(&r->from_guest, queue_used(&r->from_guest));
    queue_take(&r->to_guest, queue_used(&r->to_guest));
}
