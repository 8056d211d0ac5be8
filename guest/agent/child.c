#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "caps.h"
#include "cgroup.h"
#include "config.h"
#include "debug.h"
#include "init.h"
#include "protocol.h"
#include "root.h"
#include "users.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define USER_FILE_MAX (4u << 20)

/* Tells the agent why the program does not run, and ends. */
static void fail(const struct child *child, int kind, const char *format, ...)
	__attribute__((format(printf, 3, 4), noreturn));

static void fail(const struct child *child, int kind, const char *format, ...)
{
	char text[1024];
	va_list values;
	int length;

	text[0] = (char)kind;
	va_start(values, format);
	length = vsnprintf(text + 1, sizeof text - 1, format, values);
	va_end(values);
	if (length > (int)sizeof text - 2)
		length = (int)sizeof text - 2;
	_exit(send(child->status, text, (size_t)length + 1, MSG_NOSIGNAL) < 0 ? 126 : 127);
}

static void enter(const struct child *child)
{
	char error[512] = "";

	if (child->role == ROLE_DEBUG) {
		if (child->namespaces.ipc >= 0 && setns(child->namespaces.ipc, CLONE_NEWIPC) < 0)
			fail(child, ERROR_FAILED, "cannot join the service: %s", strerror(errno));
		if (!debug_enter(child->program, child->alone, error, sizeof error))
			fail(child, ERROR_FAILED, "%s", error);
		return;
	}
	if (!(child->program->hook ? cgroup_join_hook() : cgroup_join()))
		fail(child, ERROR_FAILED, "cannot join the control group: %s", strerror(errno));
	if (child->role == ROLE_JOIN) {
		if (setns(child->namespaces.ipc, CLONE_NEWIPC) < 0 ||
		    setns(child->namespaces.cgroup, CLONE_NEWCGROUP) < 0 ||
		    setns(child->namespaces.mnt, CLONE_NEWNS) < 0)
			fail(child, ERROR_FAILED, "cannot join the service: %s", strerror(errno));
		return;
	}
	if (unshare(CLONE_NEWCGROUP) < 0)
		fail(child, ERROR_FAILED, "cannot make a namespace: %s", strerror(errno));
	if (!root_enter(child->program, error, sizeof error))
		fail(child, ERROR_FAILED, "%s", error);
}

/* With `init`, this process becomes it, and a child of it goes on. */
static void fork_init(const struct child *child)
{
	pid_t pid;

	if (child->role != ROLE_SERVICE || !config.init)
		return;
	pid = fork();
	if (pid < 0)
		fail(child, ERROR_FAILED, "cannot fork: %s", strerror(errno));
	if (pid == 0)
		return;
	for (int i = 0; i < 3; i++)
		if (child->stdio[i] >= 0)
			close(child->stdio[i]);
	close(child->status);
	init_run(pid);
}

/* Hands the terminal's master to the agent. */
static bool send_master(int status, int master)
{
	char letter = 'T', control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {&letter, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof control};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &master, sizeof master);
	return sendmsg(status, &message, MSG_NOSIGNAL) == 1;
}

/* A terminal of the service's own devpts becomes controlling terminal and standard streams. */
static void open_terminal(const struct child *child, const struct user *user)
{
	struct winsize window = {.ws_row = child->program->rows, .ws_col = child->program->columns};
	int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	int unlocked = 0, slave = -1;
	unsigned number;
	char path[32];

	if (master >= 0 && ioctl(master, TIOCSPTLCK, &unlocked) == 0 &&
	    ioctl(master, TIOCGPTN, &number) == 0) {
		snprintf(path, sizeof path, "/dev/pts/%u", number);
		slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	}
	if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		fail(child, ERROR_FAILED, "cannot make a terminal: %s", strerror(errno));
	if (window.ws_row || window.ws_col)
		ioctl(slave, TIOCSWINSZ, &window);
	if (child->role == ROLE_SERVICE) {
		int console = open("/dev/console", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (console >= 0)
			close(console);
		syscall(SYS_mount, path, "/dev/console", NULL, 4096UL /* MS_BIND */, NULL);
	}
	if (fchown(slave, user->uid, (gid_t)-1) < 0 || !send_master(child->status, master))
		fail(child, ERROR_FAILED, "cannot hand over the terminal: %s", strerror(errno));
	for (int i = 0; i < 3; i++)
		dup2(slave, i);
	close(master);
	if (slave > 2)
		close(slave);
}

static void open_streams(const struct child *child, const struct user *user)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; i < 3; i++) {
		int fd = child->stdio[i] >= 0 ? child->stdio[i] : null;
		if (fd < 0 || dup2(fd, i) < 0)
			fail(child, ERROR_FAILED, "cannot open /dev/null: %s", strerror(errno));
		/* so that /dev/stdout can be opened by a user who is not root */
		if (child->stdio[i] >= 0 && fchown(i, user->uid, (gid_t)-1) < 0)
			fail(child, ERROR_FAILED, "cannot hand over a pipe: %s", strerror(errno));
	}
}

static void find_user(const struct child *child, struct user *user)
{
	const struct program *program = child->program;
	size_t passwd_length, group_length;
	char *passwd = get_whole("/etc/passwd", USER_FILE_MAX, &passwd_length);
	char *group = get_whole("/etc/group", USER_FILE_MAX, &group_length);
	char error[512];
	bool root = program->helper || program->debug;

	if (!user_resolve(root ? "0:0" : program->user, program->groups.at,
			  program->groups.count, passwd, passwd_length, group, group_length, user,
			  error, sizeof error))
		fail(child, ERROR_FAILED, "%s", error);
	free(passwd);
	free(group);
}

static void change_folder(const struct child *child, bool again)
{
	const char *cwd = child->program->cwd;

	if (!again && child->role == ROLE_SERVICE)
		make_folders(cwd, 0755); /* what fails is told by chdir */
	if (chdir(cwd) == 0 || (errno == EACCES && !again))
		return;
	fail(child, ERROR_FAILED, "chdir to cwd (\"%s\") set in config.json failed: %s", cwd,
	     errno == ENOENT ? "no such file or directory"
			     : errno == ENOTDIR ? "not a directory" : "permission denied");
}

static void become(const struct child *child, const struct user *user)
{
	const struct program *program = child->program;
	uint64_t allowed = program->privileged || program->helper ? cap_all() : program->caps;
	gid_t groups[GROUPS_MAX];

	for (size_t i = 0; i < program->limit_count; i++)
		if (setrlimit(program->limits[i].which, &program->limits[i].value) < 0)
			fail(child, ERROR_FAILED, "cannot set a resource limit: %s",
			     strerror(errno));
	for (size_t i = 0; i < user->group_count; i++)
		groups[i] = user->groups[i];
	if (cap_bound(allowed) < 0 || setgroups(user->group_count, groups) < 0 ||
	    setresgid(user->gid, user->gid, user->gid) < 0 ||
	    setresuid(user->uid, user->uid, user->uid) < 0)
		fail(child, ERROR_FAILED, "cannot become the user: %s", strerror(errno));
	if (user->uid == 0 && cap_set(allowed) < 0)
		fail(child, ERROR_FAILED, "cannot set capabilities: %s", strerror(errno));
	if (program->nnp)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static bool runnable(const char *path)
{
	struct stat about;

	return stat(path, &about) == 0 && S_ISREG(about.st_mode) && access(path, X_OK) == 0;
}

/* The file behind a command, found as Docker finds it. */
static void find_command(const struct child *child, const char *name, char *out, size_t size)
{
	const char *path = program_env(child->program, "PATH");
	struct stat about;
	char *copy, *rest, *folder;

	if (strchr(name, '/')) {
		snprintf(out, size, "%s", name);
		if (stat(name, &about) < 0)
			fail(child, errno == EACCES ? ERROR_NOT_RUNNABLE : ERROR_NOT_FOUND,
			     "exec: \"%s\": stat %s: %s", name, name,
			     errno == ENOTDIR ? "not a directory" : errno == EACCES
				     ? "permission denied" : "no such file or directory");
		if (S_ISDIR(about.st_mode))
			fail(child, ERROR_NOT_RUNNABLE, "exec: \"%s\": is a directory", name);
		if (!runnable(name))
			fail(child, ERROR_NOT_RUNNABLE, "exec: \"%s\": permission denied", name);
		return;
	}
	rest = copy = strdup(path ? path : DEFAULT_PATH);
	while (*name && copy && (folder = strsep(&rest, ":"))) {
		snprintf(out, size, "%s/%s", *folder ? folder : ".", name);
		if (runnable(out))
			return;
	}
	fail(child, ERROR_NOT_FOUND, "exec: \"%s\": executable file not found in $PATH", name);
}

static void complete_env(struct program *program, const struct user *user)
{
	char *text;

	if (!program_env(program, "PATH"))
		list_add(&program->env, strdup("PATH=" DEFAULT_PATH));
	if (!program_env(program, "HOME") && asprintf(&text, "HOME=%s", user->home) > 0)
		list_add(&program->env, text);
	if (program->tty && !program_env(program, "TERM"))
		list_add(&program->env, strdup("TERM=xterm"));
}

/* The agent lets go of what it traces once the program is loaded, and leaves it stopped. Under an
 * init of ours, which is not the agent's child's tracer, it stops itself a moment earlier. */
static void hold(void)
{
	if (config.init)
		raise(SIGSTOP);
	else
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

/* This process goes on as the agent's copy, so what it holds of others must go. */
static void keep_only(int one, int other)
{
	unsigned low = (unsigned)(one < other ? one : other), high = (unsigned)(one + other) - low;

	if (low > 0)
		syscall(SYS_close_range, 0, low - 1, 0);
	if (high > low + 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

static void serve_disk(const struct child *child)
{
	char error[512] = "";

	keep_only(child->stdio[0], child->status);
	if (!debug_serve_disk(child->stdio[0], child->status, child->program->disk, error,
			      sizeof error))
		fail(child, ERROR_FAILED, "%s", error);
	_exit(0);
}

static void execute(const struct child *child)
{
	struct program *program = (struct program *)child->program; /* a copy of our own by now */
	char path[4200];

	if (program->helper) {
		syscall(SYS_execveat, child->busybox, "", program->args.at, program->env.at,
			AT_EMPTY_PATH);
		fail(child, ERROR_FAILED, "cannot run the helper: %s", strerror(errno));
	}
	find_command(child, program->args.at[0], path, sizeof path);
	if (program->held && child->role == ROLE_SERVICE)
		hold();
	execve(path, program->args.at, program->env.at);
	fail(child, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_NOT_RUNNABLE, "exec %s: %s", path,
	     errno == ENOEXEC  ? "exec format error"
	     : errno == ENOENT ? "no such file or directory"
	     : errno == E2BIG  ? "argument list too long"
			       : strerror(errno));
}

void child_run(const struct child *child)
{
	struct user user;
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	umask(022);
	if (child->role == ROLE_DISK)
		serve_disk(child);
	put_file("/proc/self/oom_score_adj", "0");
	enter(child);
	fork_init(child);
	setsid();
	find_user(child, &user);
	if (child->program->tty)
		open_terminal(child, &user);
	else
		open_streams(child, &user);
	change_folder(child, false);
	become(child, &user);
	change_folder(child, true);
	complete_env((struct program *)child->program, &user);
	execute(child);
	_exit(126);
}
