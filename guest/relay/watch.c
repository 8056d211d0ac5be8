#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "relay.h"
#include "watcher.h"

/* Keeps nothing of ours but the pipe: who waits for the end of a connection must see it. */
static _Noreturn void become_watcher(const struct launch *launch, int pipe, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "gemel-watch");
    if (dup2(pipe, 3) < 0 || syscall(SYS_close_range, 4U, ~0U, 0U) != 0 ||
        prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(1);
    watcher_run(launch, 3);
}

void watch_start(struct relay *r)
{
    int pair[2];
    bool any = false;
    for (size_t i = 0; i < r->launch.n_shares; i++)
        any = any || r->launch.shares[i].tag;
    if (!any || r->watch >= 0 || pipe2(pair, O_CLOEXEC) != 0)
        return;
    pid_t parent = getpid();
    r->watcher = fork();
    if (r->watcher == 0)
        become_watcher(&r->launch, pair[1], parent);
    close(pair[1]);
    if (r->watcher < 0) {
        r->watcher = 0;
        close(pair[0]);
        return;
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    r->watch = pair[0];
}

/* The guest's name of the share and the path in it, with a 0 between. */
static void tell(struct relay *r, const struct watch_head *head, const char *path)
{
    char text[128 + WATCH_PATH_MOST];
    if (head->share == WATCH_NOTE) {
        if (r->guest_log >= 0)
            dprintf(r->guest_log, "relay: %.*s\n", (int)head->length, path);
        return;
    }
    if (head->share >= r->launch.n_shares || !r->launch.shares[head->share].tag)
        return;
    size_t n = (size_t)snprintf(text, 128, "%s", r->launch.shares[head->share].tag) + 1;
    if (n > 128)
        return;
    memcpy(text + n, path, head->length);
    guest_send(r, 0, H_CHANGED, 0, text, n + head->length);
}

void watch_read(struct relay *r)
{
    struct watch_head head;
    char path[WATCH_PATH_MOST];
    /* records are smaller than what a pipe takes whole */
    for (int turn = 0; turn < 64 && r->watch >= 0; turn++) {
        ssize_t got = read(r->watch, &head, sizeof head);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got != sizeof head || head.length > sizeof path ||
            (head.length && read(r->watch, path, head.length) != head.length)) {
            close(r->watch);
            r->watch = -1;
            return;
        }
        if (r->state == RUNNING)
            tell(r, &head, path);
    }
}

void watch_end(struct relay *r)
{
    if (r->watch >= 0)
        close(r->watch);
    r->watch = -1;
    if (r->watcher)
        kill(r->watcher, SIGKILL);
    r->watcher = 0;
}
