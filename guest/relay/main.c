/* relay READY_FD < records: see relay.h. Starts in the background; the parent ends as soon as it
 * has read what to run. READY_FD then tells `started PID` or `error KIND TEXT`. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "relay.h"
#include "watch.h"

static struct relay relay;

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void report(struct relay *r, const char *text)
{
    if (r->ready >= 0 && write(r->ready, text, strlen(text)) < 0)
        r->state = DONE; /* nobody waits for us any more */
    if (r->ready >= 0)
        close(r->ready);
    r->ready = -1;
}

void relay_tell(struct relay *r, const char *line)
{
    if (r->ready >= 0 && write(r->ready, line, strlen(line)) < 0)
        relay_fail(r, "failed", "nobody waits for the VM any more");
}

void relay_finish(struct relay *r, int status, bool oom, const char *error)
{
    char text[2600];
    struct timespec now;
    if (r->exit_written)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof text, "status %d\nfinished %lld.%09ld\noom %d\nerror %s\n", status,
             (long long)now.tv_sec, now.tv_nsec, oom, error);
    if (write_whole("exit", text) != 0)
        write_whole("exit", "status 137\nfinished 0\noom 0\nerror the disk is full\n");
    r->exit_written = true;
}

void relay_fail(struct relay *r, const char *kind, const char *format, ...)
{
    char text[2400];
    va_list list;
    if (r->state == DONE)
        return;
    bool before = r->state < STARTING || (warm_is_copy(r) && !r->warm.thawed);
    bool falls_back = r->launch.cloning && !r->launch.standby_fd && before && r->ready >= 0;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < 32)
            *at = ' ';
    r->state = DONE;
    if (falls_back) {
        r->fell_back = !r->taken;
        r->again = true;
        snprintf(r->because, sizeof r->because, "%.390s", text);
    } else if (r->ready < 0)
        relay_finish(r, 137, false, text);
    else /* told when everything has been ended */
        snprintf(r->last_words, sizeof r->last_words, "error %s %s\n", kind, text);
}

void relay_started(struct relay *r)
{
    char text[64];
    if (r->launch.cloning || r->fell_back) {
        char how[512];
        snprintf(how, sizeof how, r->fell_back      ? "cold %s\n"
                                  : warm_is_copy(r) ? "warm\n"
                                  : r->taken        ? "cloned it stood by\n"
                                  : *r->because     ? "cloned the one that stood by failed: %s\n"
                                                    : "cloned\n", r->because);
        if (write_whole("boot", how) != 0) {
            relay_fail(r, "failed", "cannot write how it was booted: %s", strerror(errno));
            return;
        }
    }
    snprintf(text, sizeof text, "%d %d\n", (int)getpid(), (int)r->vmm);
    if (write_whole("pid", text) != 0) {
        relay_fail(r, "failed", "cannot write the pid file: %s", strerror(errno));
        return;
    }
    snprintf(text, sizeof text, "started %d\n", (int)r->vmm);
    report(r, text);
}

void relay_kill(struct relay *r)
{
    unsigned char raw[4];
    int64_t soon = now_ms() + KILL_MS;
    if (r->state < RUNNING) {
        r->launch.cloning = false; /* that is no reason for another try */
        relay_fail(r, "failed", "it was killed while it started");
    }
    if (r->state == STOPPING && r->deadline > soon)
        r->deadline = soon;
    if (r->state != RUNNING || r->kill_deadline)
        return;
    if (r->launch.idle) {
        guest_shut_down(r);
        return;
    }
    r->kill_deadline = soon;
    put_u32(raw, SIGKILL);
    guest_send(r, 0, H_THAW, 0, NULL, 0);
    guest_send(r, SESSION_SERVICE, H_SIGNAL, FLAG_ALL, raw, sizeof raw);
}

static void boot_again(struct relay *r)
{
    if (r->launch.cloning) {
        relay_fail(r, "timeout", "the clone did not answer (%lld ms of CPU time)%s%s",
                   (long long)vm_cpu_ms(r), *r->error_tail ? ": " : "", r->error_tail);
        return;
    }
    if (r->attempts >= (r->launch.probe ? 1 : ATTEMPTS)) {
        relay_fail(r, "timeout", "the guest did not come up within %d ms, tried %d times%s%s",
                   r->launch.boot_ms, r->attempts, *r->error_tail ? ": " : "", r->error_tail);
        return;
    }
    if (r->guest_log >= 0)
        dprintf(r->guest_log, "relay: the guest hangs after %lld ms of CPU time, boots again\n",
                (long long)vm_cpu_ms(r));
    vm_end(r); /* a hung calibration of the clock is the known cause; a second boot mends it */
    vm_launch(r);
}

/* A guest that hangs burns CPU time without an end; one on a busy host only waits for it. So
 * CPU time tells a hung boot early, without taking a slow one for it. */
static void check_boot(struct relay *r)
{
    if (r->launch.cloning && r->state == BOOTING && vm_cpu_ms(r) > CLONE_CPU_MS)
        boot_again(r);
    if (r->launch.boot_cpu_ms && r->state == BOOTING && !r->launch.cloning && !r->saving && r->attempts < ATTEMPTS &&
        vm_cpu_ms(r) > r->launch.boot_cpu_ms)
        boot_again(r);
}

/* A VM for helpers ends some time after the last of them. */
static void check_idle(struct relay *r)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (r->clients[i].fd >= 0)
            return;
    if (now_ms() - r->used_at > IDLE_MS)
        guest_shut_down(r);
}

static void check_deadlines(struct relay *r)
{
    int64_t now = now_ms();
    check_boot(r);
    if (r->state == RUNNING) {
        clock_look(r, now);
        warm_look(r, now);
    }
    if (r->launch.idle && r->state == RUNNING)
        check_idle(r);
    if (r->kill_deadline && now >= r->kill_deadline && r->state == RUNNING) {
        relay_finish(r, 137, false, "");
        r->state = DONE;
    }
    if (!r->deadline || now < r->deadline || r->state == DONE)
        return;
    if (r->state == BOOTING)
        boot_again(r);
    else if (r->state == STANDING_BY && r->launch.standby_fd)
        standby_rest(r);
    else if (r->state == STOPPING)
        r->state = DONE;
    else if (r->warm.hooking)
        relay_fail(r, "timeout", "its hook does not end");
    else if (r->state == RUNNING)
        relay_fail(r, "failed", "the channel to the guest's agent was closed");
    else
        relay_fail(r, "timeout", "the guest was not set up within %d ms%s%s",
                   r->launch.config_ms, *r->guest_said ? "; it said: " : "", r->guest_said);
}

static int patience(const struct relay *r)
{
    int64_t wait = 60000, now = now_ms();
    if (r->deadline && r->deadline - now < wait)
        wait = r->deadline - now;
    if (r->state == RUNNING && r->clock_due - now < wait)
        wait = r->clock_due - now;
    if (r->warm.step != WARM_IDLE && r->warm.deadline - now < wait)
        wait = r->warm.deadline - now;
    if (r->kill_deadline && r->kill_deadline - now < wait)
        wait = r->kill_deadline - now;
    if ((guest_owed(r) || r->launch.idle) && wait > 1000)
        wait = 1000; /* someone attached is slow, or nobody comes: look again */
    if (r->state == BOOTING && wait > LOOK_MS)
        wait = LOOK_MS;
    return wait < 0 ? 0 : (int)wait + 1;
}

static void take_signals(struct relay *r)
{
    struct signalfd_siginfo info;
    while (read(r->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            vm_reap(r);
        else
            relay_kill(r);
    }
}

enum { P_AGENT, P_SIGNALS, P_LISTENER, P_ERRORS, P_READY, P_QMP, P_WATCH, P_JUMPS, P_ORDERS, P_CONSOLE,
       P_CLIENTS };

/* What is waited for; of what would send to the guest nothing, while too much waits for it. */
static void fill(struct relay *r, struct pollfd *p)
{
    bool crowded = queue_used(&r->to_guest) > GUEST_CROWDED;
    p[P_AGENT] = (struct pollfd){r->agent, POLLIN, 0};
    if (queue_used(&r->to_guest))
        p[P_AGENT].events |= POLLOUT;
    p[P_SIGNALS] = (struct pollfd){r->signals, POLLIN, 0};
    p[P_LISTENER] = (struct pollfd){r->listener, POLLIN, 0};
    p[P_ERRORS] = (struct pollfd){r->errors, POLLIN, 0};
    p[P_READY] = (struct pollfd){r->ready, 0, 0};
    p[P_QMP] = (struct pollfd){r->qmp, POLLIN, 0};
    p[P_JUMPS] = (struct pollfd){r->jumps, POLLIN, 0};
    p[P_ORDERS] = (struct pollfd){r->launch.standby_fd && r->state == STANDING_BY ? r->launch.standby_fd : -1, POLLIN, 0};
    p[P_CONSOLE] = (struct pollfd){r->console.fd, POLLIN, 0};
    p[P_WATCH] = (struct pollfd){crowded ? -1 : r->watch, POLLIN, 0};
    for (int i = 0; i < MAX_CLIENTS; i++) {
        short events = crowded ? 0 : POLLIN;
        if (queue_used(&r->clients[i].out))
            events |= POLLOUT;
        p[P_CLIENTS + i] = (struct pollfd){r->clients[i].fd, events, 0};
    }
}

static void turn(struct relay *r)
{
    struct pollfd p[P_CLIENTS + MAX_CLIENTS];
    fill(r, p);
    if (poll(p, P_CLIENTS + MAX_CLIENTS, patience(r)) < 0 && errno != EINTR) {
        relay_fail(r, "failed", "poll: %s", strerror(errno));
        return;
    }
    if (p[P_ERRORS].revents)
        vm_hear_errors(r);
    if (p[P_CONSOLE].revents && r->console.fd >= 0)
        vm_hear_console(r);
    if (p[P_READY].revents && r->ready >= 0) {
        r->launch.cloning = false;
        relay_fail(r, "failed", "nobody waits for the start any more");
    }
    if (p[P_QMP].revents && r->qmp >= 0)
        qmp_read(r);
    if (p[P_WATCH].revents && r->watch >= 0)
        watch_read(r);
    if (p[P_ORDERS].revents && r->launch.standby_fd)
        standby_read(r);
    if (p[P_JUMPS].revents)
        clock_jumped(r);
    if (p[P_AGENT].revents & (POLLIN | POLLHUP | POLLERR))
        guest_read(r);
    for (int i = 0; i < MAX_CLIENTS && r->state != DONE; i++)
        if (p[P_CLIENTS + i].revents & (POLLIN | POLLHUP | POLLERR) && r->clients[i].fd >= 0)
            client_read(r, &r->clients[i]);
    if (p[P_LISTENER].revents)
        client_accept(r);
    if (p[P_SIGNALS].revents)
        take_signals(r);
    if (r->agent >= 0 && r->state != DONE) {
        guest_pay(r);
        queue_write(&r->to_guest, r->agent);
    }
    clients_flush(r);
    check_deadlines(r);
}

/* Whoever is still owed output gets it, if it reads. */
static void linger(struct relay *r)
{
    close(r->listener);
    r->listener = -1;
    for (;;) {
        struct pollfd p[MAX_CLIENTS];
        int waiting = 0;
        clients_flush(r);
        for (int i = 0; i < MAX_CLIENTS; i++) {
            struct client *c = &r->clients[i];
            bool late = c->fd >= 0 && now_ms() - c->moved_at > LINGER_MS;
            if (c->fd >= 0 && (!queue_used(&c->out) || late))
                client_drop(r, c);
            waiting += c->fd >= 0;
            p[i] = (struct pollfd){c->fd, POLLOUT, 0};
        }
        if (!waiting || poll(p, MAX_CLIENTS, 1000) < 0)
            return;
    }
}

/* A clone that has not come up before its service was to start is booted cold instead; instead of
 * one that stood by there is another clone first. */
static bool boot_again_otherwise(struct relay *r)
{
    if (!r->again || !r->launch.cloning || r->ready < 0)
        return false;
    if (r->errors >= 0)
        vm_hear_errors(r);
    if (r->guest_log >= 0)
        dprintf(r->guest_log, "relay: the clone failed, %s: %s%s%s\n",
                r->taken ? "another takes its place" : "boots cold", r->because,
                *r->error_tail ? "; the VMM said: " : "", r->error_tail);
    vm_end(r);
    unlink("spent");
    if (r->launch.warm_disk)
        unlink(r->launch.warm_disk);
    r->launch.cloning = r->taken;
    r->taken = r->again = false;
    r->attempts = 0;
    r->deadline = 0;
    r->start_due = false;
    *r->error_tail = *r->guest_said = 0;
    r->state = BOOTING;
    vm_launch(r);
    return true;
}

/* Into the control groups, with the VMM if there is one already, and the folder; from then on
 * the engine can connect. */
const char *relay_enter(struct relay *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "relay.sock"};
    char vmm[32];
    int n = snprintf(vmm, sizeof vmm, "%d", (int)r->vmm);
    for (size_t i = 0; i < r->launch.n_cgroups; i++) {
        int fd = open(r->launch.cgroups[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1 || (r->vmm && write(fd, vmm, (size_t)n) != n))
            return "cannot enter the control group";
        close(fd);
    }
    umask(0177);
    if (chdir(r->launch.dir) != 0)
        return "cannot enter the folder";
    r->guest_log = open("guest.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log_open(&r->log, r->launch.log, r->launch.log_size) != 0)
        return "cannot open the log";
    unlink(address.sun_path);
    r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r->listener < 0 || bind(r->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(r->listener, 64) != 0)
        return "cannot listen";
    umask(022);
    return NULL;
}

static const char *set_up(struct relay *r)
{
    sigset_t handled;
    if (r->launch.template && unshare(CLONE_NEWNET) != 0)
        return "cannot make a network of the template's own";
    const char *wrong = relay_enter(r);
    if (wrong)
        return wrong;
    sigemptyset(&handled);
    sigaddset(&handled, SIGCHLD);
    sigaddset(&handled, SIGTERM);
    sigaddset(&handled, SIGINT);
    sigprocmask(SIG_BLOCK, &handled, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    r->signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r->signals < 0)
        return "cannot take signals";
    clock_open(r);
    return NULL;
}

static void detach(int ready)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t pid = fork();
    if (pid < 0)
        exit(1);
    if (pid > 0)
        _exit(0);
    setsid();
    prctl(PR_SET_NAME, "gemel-relay");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fcntl(ready, F_SETFD, FD_CLOEXEC);
    for (int fd = 0; fd < 3 && fd != ready; fd++)
        dup2(null, fd);
    close(null);
}

int main(int argc, char **argv)
{
    struct relay *r = &relay;
    r->host_net = r->peer = r->console.fd = -1;
    r->agent = r->errors = r->qmp = r->watch = r->jumps = r->listener = r->signals = r->guest_log = r->log.fd = -1;
    r->ready = argc == 2 ? atoi(argv[1]) : -1;
    r->next_session = 2;
    warm_init(r);
    r->from_guest.limit = 4 * FRAME_PAYLOAD_MAX;
    r->to_guest.limit = GUEST_LIMIT;
    r->orders.limit = MAX_LAUNCH;
    for (int i = 0; i < MAX_CLIENTS; i++)
        r->clients[i].fd = -1;
    for (int i = 0; i < MAX_TAPS; i++)
        r->taps[i] = -1;
    if (r->ready < 3 || fcntl(r->ready, F_GETFD) < 0) {
        fprintf(stderr, "usage: relay READY_FD < records\n");
        return 2;
    }
    const char *wrong = launch_read(&r->launch, 0);
    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        return 2;
    }
    /* Before the fork: once the parent has ended, the engine can connect. */
    wrong = set_up(r);
    int error = errno;
    detach(r->ready);
    if (r->launch.standby_fd) {
        fcntl(r->launch.standby_fd, F_SETFD, FD_CLOEXEC);
        fcntl(r->launch.standby_fd, F_SETFL, O_NONBLOCK);
    }
    if (wrong)
        relay_fail(r, "failed", "%s: %s", wrong, strerror(error));
    else
        vm_launch(r);
    do
        while (r->state != DONE)
            turn(r);
    while (boot_again_otherwise(r));
    if (!wrong)
        unlink("relay.sock"); /* not before we are in our folder */
    vm_end(r);
    if (*r->last_words)
        report(r, r->last_words);
    linger(r);
    return 0;
}
