#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REPORT = 200, HIGH = 300 };

static _Noreturn void fail(const char *step, const char *what)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s %s: %s", step, what, strerror(errno));
    if (n > (int)sizeof text - 1)
        n = (int)sizeof text - 1;
    if (write(REPORT, text, (size_t)n) < 0)
        _exit(126);
    _exit(127);
}

/* Moves the descriptors to their numbers, by way of high ones so that none is run over. */
static void place(const struct placed *fds, size_t n, int report, int error_fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int high = HIGH;
    int moved_report = fcntl(report, F_DUPFD_CLOEXEC, HIGH);
    int moved_error = fcntl(error_fd, F_DUPFD_CLOEXEC, HIGH);
    int moved[MAX_PLACED];
    for (size_t i = 0; i < n; i++)
        moved[i] = fcntl(fds[i].from, F_DUPFD_CLOEXEC, high++);
    dup3(moved_report, REPORT, O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(moved_error, 1) < 0 || dup2(moved_error, 2) < 0)
        fail("cannot place", "the standard streams");
    for (size_t i = 0; i < n; i++)
        if (moved[i] < 0 || dup2(moved[i], fds[i].to) < 0)
            fail("cannot place", "a descriptor");
    /* all others close by themselves on exec */
    if (syscall(SYS_close_range, 3U, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) != 0)
        fail("cannot close", "the other descriptors");
    for (size_t i = 0; i < n; i++)
        fcntl(fds[i].to, F_SETFD, 0);
}

static void bind_mount(const char *source, const char *target, bool readonly, bool recursive)
{
    unsigned long flags = recursive ? MS_BIND | MS_REC : MS_BIND;
    if (mount(source, target, NULL, flags, NULL) != 0)
        fail("cannot show", source);
    struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_NOSUID | (readonly ? MOUNT_ATTR_RDONLY : 0)};
    if (readonly && mount_setattr(AT_FDCWD, target, recursive ? AT_RECURSIVE : 0, &attributes,
                                  sizeof attributes) != 0)
        fail("cannot make read-only", source);
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        fail("cannot make", path);
    close(fd);
}

/* A device (kvm) gets a node of the VMM's own: the host's may belong to root alone. */
static void make_device(const char *path, const char *like, uid_t owner)
{
    struct stat facts;
    if (stat(like, &facts) != 0 || mknod(path, S_IFCHR | 0600, facts.st_rdev) != 0 ||
        chown(path, owner, 0) != 0)
        fail("cannot make a device like", like);
}

/* The VMM's root: an own small tmpfs with /usr, /dev/null and what is bound by name. */
static void enter_jail(const struct launch *l)
{
    static const char *const links[] = {"lib", "lib64", "bin", "sbin"};
    char path[PATH_MAX], target[PATH_MAX];
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
        fail("cannot make", "namespaces");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail("cannot make private", "mounts");
    if (mount("gemel", "jail", "tmpfs", MS_NOSUID, "size=256k,nr_inodes=256,mode=755") != 0)
        fail("cannot mount", "the jail");
    mkdir("jail/usr", 0755);
    mkdir("jail/dev", 0755);
    mkdir("jail/tmp", 0700);
    bind_mount("/usr", "jail/usr", true, true);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "jail/%s", links[i]);
        snprintf(target, sizeof target, "usr/%s", links[i]);
        if (symlink(target, path) != 0)
            fail("cannot link", path);
    }
    make_file("jail/dev/null");
    bind_mount("/dev/null", "jail/dev/null", false, false);
    for (size_t i = 0; i < l->n_binds; i++) {
        snprintf(path, sizeof path, "jail/%s", l->binds[i].target);
        if (!strncmp(l->binds[i].target, "dev/", 4)) {
            make_device(path, l->binds[i].source, l->uid);
            continue;
        }
        make_file(path);
        bind_mount(l->binds[i].source, path, true, false);
    }
    if (l->template || l->cloning) { /* it opens the guest's memory by its descriptor's name */
        mkdir("jail/proc", 0555);
        if (mount("proc", "jail/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                  "hidepid=ptraceable,subset=pid") != 0)
            fail("cannot mount", "the jail's /proc");
    }
    if (chdir("jail") != 0 || syscall(SYS_pivot_root, ".", ".") != 0)
        fail("cannot enter", "the jail");
    if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
        fail("cannot leave", "the host's files");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL) != 0)
        fail("cannot make read-only", "the jail");
}

static void become(const struct launch *l)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none); /* a dump would hold the guest's memory */
    if (setgroups(l->n_groups, l->groups) != 0 || setresgid(l->gid, l->gid, l->gid) != 0 ||
        setresuid(l->uid, l->uid, l->uid) != 0)
        fail("cannot become", "the VMM's user");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fail("cannot give up", "new privileges");
}

/* Dies with the relay. To be called after the last change of user: that clears it. */
static void die_with(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(127);
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
}

/* Waits until the child has become its program, or has told why it cannot. */
static pid_t started(pid_t pid, int report[2], char *why, size_t why_size)
{
    close(report[1]);
    ssize_t got = pid < 0 ? -1 : read(report[0], why, why_size - 1);
    close(report[0]);
    if (pid < 0) {
        snprintf(why, why_size, "cannot start a process: %s", strerror(errno));
        return -1;
    }
    if (got <= 0)
        return pid;
    why[got] = 0;
    waitpid(pid, NULL, 0);
    return -1;
}

pid_t start_vmm(const struct launch *l, const struct placed *fds, size_t n, int error_fd,
                char *why, size_t why_size)
{
    int report[2];
    char preload[128];
    char *const environment[] = {"PATH=/usr/bin", "LANG=C",
                                 l->cloning && l->preload ? preload : NULL, NULL};
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", l->preload ? l->preload : "");
    if (pipe2(report, O_CLOEXEC) != 0) {
        snprintf(why, why_size, "cannot make a pipe: %s", strerror(errno));
        return -1;
    }
    mkdir("jail", 0700);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        place(fds, n, report[1], error_fd);
        enter_jail(l);
        become(l);
        die_with(parent);
        reset_signals();
        char **argv = l->cloning ? l->clone_argv : l->argv;
        execve(argv[0], argv, environment);
        fail("cannot run", argv[0]);
    }
    return started(pid, report, why, why_size);
}

/* share-N in our folder is what the file server shows: the folder itself, or a folder with the
 * one file in it. The mount is in the child's own namespace, so it ends with it. */
static void stage(const struct share *share, const char *folder)
{
    char path[PATH_MAX];
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail("cannot make", "a mount namespace");
    snprintf(path, sizeof path, "%s%s%s", folder, *share->name ? "/" : "", share->name);
    bind_mount(share->source, path, share->readonly, true);
}

pid_t start_share(const struct launch *l, size_t index, int listener, int error_fd, char *why,
                  size_t why_size)
{
    const struct share *share = &l->shares[index];
    char folder[32], path[PATH_MAX];
    int report[2];
    char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", NULL};
    if (pipe2(report, O_CLOEXEC) != 0) {
        snprintf(why, why_size, "cannot make a pipe: %s", strerror(errno));
        return -1;
    }
    snprintf(folder, sizeof folder, "share-%zu", index);
    mkdir(folder, 0700);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        struct placed fd = {listener, 3};
        place(&fd, 1, report[1], error_fd);
        if (*share->name) {
            snprintf(path, sizeof path, "%s/%s", folder, share->name);
            make_file(path);
        }
        stage(share, folder);
        die_with(parent);
        reset_signals();
        execve(share->argv[0], share->argv, environment);
        fail("cannot run", share->argv[0]);
    }
    return started(pid, report, why, why_size);
}
