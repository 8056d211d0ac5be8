/* Names and folders may be the guest's, so all is bounded, and no symbolic link is followed:
 * one could lead to folders whose names the guest must not learn. */
#include "watcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WATCHES = 8192, MAX_PENDING = 256, SETTLE_MS = 40, LONGEST_MS = 200,
       PAUSE_MS = 4 };

/* Not IN_ATTRIB and IN_CLOSE_WRITE: those are what the agent makes of a change. */
static const uint32_t wanted = IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                               IN_EXCL_UNLINK;

struct place { int wd; uint8_t share; char *path; };

static struct {
    const struct launch *launch;
    int notify, pipe, roots[MAX_SHARES];
    struct place watches[MAX_WATCHES]; /* by wd, ascending */
    size_t n_watches;
    struct place todo[MAX_WATCHES]; /* folders that are to be walked */
    size_t n_todo;
    struct place pending[MAX_PENDING];
    size_t n_pending;
    int64_t first; /* when the first of `pending` came */
    int64_t quiet_until;
    bool crowded[MAX_SHARES]; /* more has changed there than `pending` holds */
    bool full_told;
} w;

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void put(uint8_t share, const char *text)
{
    char record[sizeof(struct watch_head) + WATCH_PATH_MOST];
    struct watch_head head = {share, 0, (uint16_t)strlen(text)};
    memcpy(record, &head, sizeof head);
    memcpy(record + sizeof head, text, head.length);
    if (write(w.pipe, record, sizeof head + head.length) < 0 && errno != EINTR)
        _exit(0);
}

/* Each costs the guest some file operations, so many at once are followed by a pause. */
static void flush(void)
{
    size_t told = w.n_pending;
    for (size_t i = 0; i < w.n_pending; i++) {
        put(w.pending[i].share, w.pending[i].path);
        free(w.pending[i].path);
    }
    for (size_t i = 0; i < w.launch->n_shares; i++) {
        if (w.crowded[i])
            put((uint8_t)i, "");
        w.crowded[i] = false;
    }
    w.n_pending = 0;
    w.quiet_until = clock_ms() + (int64_t)told * PAUSE_MS;
}

/* Something has changed there. What is too much at once is said of the share as a whole. */
static void note(uint8_t share, const char *path)
{
    for (size_t i = 0; i < w.n_pending; i++)
        if (w.pending[i].share == share && !strcmp(w.pending[i].path, path))
            return;
    if (w.n_pending == MAX_PENDING) {
        w.crowded[share] = true;
        return;
    }
    char *copy = strdup(path);
    if (!copy)
        return;
    if (!w.n_pending)
        w.first = clock_ms();
    w.pending[w.n_pending++] = (struct place){0, share, copy};
}

/* How long to wait for more, in ms. */
static int patience(void)
{
    int64_t quiet = w.quiet_until - clock_ms();
    if (!w.n_pending)
        return -1;
    return quiet > SETTLE_MS ? (int)quiet : SETTLE_MS;
}

static bool is_due(bool settled)
{
    int64_t now = clock_ms();
    return w.n_pending && now >= w.quiet_until && (settled || now - w.first > LONGEST_MS);
}

/* Index of the watch, or of where it would be. */
static size_t find(int wd)
{
    size_t low = 0, high = w.n_watches;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (w.watches[middle].wd < wd)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_known(size_t at, int wd)
{
    return at < w.n_watches && w.watches[at].wd == wd;
}

static void forget(size_t at)
{
    free(w.watches[at].path);
    w.n_watches--;
    memmove(w.watches + at, w.watches + at + 1, (w.n_watches - at) * sizeof *w.watches);
}

static void say_full(const char *why)
{
    if (!w.full_told)
        put(WATCH_NOTE, why);
    w.full_told = true;
}

static void remember(int wd, uint8_t share, const char *path)
{
    char *copy = strdup(path);
    size_t at = find(wd);
    if (!copy)
        return;
    if (is_known(at, wd)) { /* the same folder, by another name */
        free(w.watches[at].path);
    } else {
        memmove(w.watches + at + 1, w.watches + at, (w.n_watches - at) * sizeof *w.watches);
        w.n_watches++;
    }
    w.watches[at] = (struct place){wd, share, copy};
}

static bool watch(int fd, uint8_t share, const char *path)
{
    char self[64];
    if (w.n_watches == MAX_WATCHES) {
        say_full("some bind mounts have more folders than are watched for changes");
        return false;
    }
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int wd = inotify_add_watch(w.notify, self, wanted);
    if (wd < 0) {
        say_full("the host allows no more inotify watches (fs.inotify.max_user_watches)");
        return false;
    }
    remember(wd, share, path);
    return true;
}

static bool join(char *out, const char *folder, const char *name)
{
    int n = snprintf(out, WATCH_PATH_MOST, "%s%s%s", folder, *folder ? "/" : "", name);
    return n > 0 && n < WATCH_PATH_MOST;
}

/* Large, always changing, and looked at by no reloader. */
static bool is_dull(const char *name)
{
    return !strcmp(name, ".git") || !strcmp(name, "node_modules");
}

static void enqueue(uint8_t share, const char *folder, const char *name)
{
    char path[WATCH_PATH_MOST];
    if (is_dull(name) || w.n_todo == MAX_WATCHES || !join(path, folder, name))
        return;
    char *copy = strdup(path);
    if (copy)
        w.todo[w.n_todo++] = (struct place){0, share, copy};
}

static bool is_folder(int fd, const struct dirent *entry)
{
    struct stat facts;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(fd, entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(facts.st_mode);
}

/* fresh: the folder has just been made, and files that are in it already may have gone unheard. */
static void visit(uint8_t share, const char *path, bool fresh)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, w.roots[share], *path ? path : ".", &how, sizeof how);
    if (fd < 0)
        return;
    DIR *folder = watch(fd, share, path) ? fdopendir(fd) : NULL;
    if (!folder) {
        close(fd);
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        char inside[WATCH_PATH_MOST];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (is_folder(fd, entry))
            enqueue(share, path, entry->d_name);
        else if (fresh && join(inside, path, entry->d_name))
            note(share, inside);
    }
    closedir(folder);
}

/* Folders above come before those in them, so that a bound cuts off the deepest. */
static void walk(bool fresh)
{
    for (size_t i = 0; i < w.n_todo; i++) {
        visit(w.todo[i].share, w.todo[i].path, fresh);
        free(w.todo[i].path);
    }
    w.n_todo = 0;
}

/* A folder has gone elsewhere, with all in it. */
static void leave(uint8_t share, const char *path)
{
    size_t n = strlen(path);
    for (size_t i = w.n_watches; i-- > 0;) {
        const struct place *one = &w.watches[i];
        if (one->share != share || strncmp(one->path, path, n) != 0 ||
            (one->path[n] && one->path[n] != '/'))
            continue;
        inotify_rm_watch(w.notify, one->wd);
        forget(i);
    }
}

static void take(const struct inotify_event *event)
{
    char path[WATCH_PATH_MOST];
    if (event->mask & IN_Q_OVERFLOW) {
        for (size_t i = 0; i < w.launch->n_shares; i++)
            if (w.launch->shares[i].tag)
                note((uint8_t)i, "");
        return;
    }
    size_t at = find(event->wd);
    if (!is_known(at, event->wd))
        return;
    if (event->mask & IN_IGNORED) {
        forget(at);
        return;
    }
    uint8_t share = w.watches[at].share;
    if (!join(path, w.watches[at].path, event->len ? event->name : ""))
        return;
    if (!event->len)
        snprintf(path, sizeof path, "%s", w.watches[at].path);
    note(share, path);
    if (!(event->mask & IN_ISDIR))
        return;
    if (event->mask & IN_MOVED_FROM)
        leave(share, path);
    if (event->mask & (IN_CREATE | IN_MOVED_TO)) {
        char folder[WATCH_PATH_MOST];
        snprintf(folder, sizeof folder, "%s", w.watches[find(event->wd)].path);
        enqueue(share, folder, event->name);
        walk(true);
    }
}

static void hear(void)
{
    static char room[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t got = read(w.notify, room, sizeof room);
    for (ssize_t at = 0; at < got;) {
        const struct inotify_event *event = (const struct inotify_event *)(room + at);
        take(event);
        at += (ssize_t)(sizeof *event + event->len);
    }
}

static void begin(void)
{
    for (size_t i = 0; i < w.launch->n_shares; i++) {
        const struct share *share = &w.launch->shares[i];
        w.roots[i] = -1;
        if (!share->tag)
            continue;
        w.roots[i] = open(share->source, O_PATH | O_CLOEXEC);
        if (w.roots[i] >= 0 && *share->name)
            watch(w.roots[i], (uint8_t)i, share->name);
        else if (w.roots[i] >= 0)
            visit((uint8_t)i, "", false);
    }
    walk(false);
}

_Noreturn void watcher_run(const struct launch *launch, int pipe)
{
    w.launch = launch;
    w.pipe = pipe;
    w.notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (w.notify < 0) {
        put(WATCH_NOTE, "the host allows no inotify (fs.inotify.max_user_instances)");
        _exit(0);
    }
    begin();
    for (;;) {
        struct pollfd p[] = {{w.notify, POLLIN, 0}, {pipe, 0, 0}};
        int heard = poll(p, 2, patience());
        if (heard < 0 && errno != EINTR)
            _exit(1);
        if (p[1].revents)
            _exit(0); /* nobody reads any more */
        if (heard > 0)
            hear();
        if (is_due(heard == 0))
            flush();
    }
}
