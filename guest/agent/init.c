#include "init.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(pid_t child)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == child)
			_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

void init_run(pid_t child)
{
	sigset_t all;
	siginfo_t about;

	prctl(PR_SET_NAME, "init");
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	syscall(SYS_close_range, 0, ~0u, 0); /* the agent's port is none of the service's */
	for (;;) {
		if (sigwaitinfo(&all, &about) < 0 && errno != EINTR)
			_exit(125);
		if (about.si_signo == SIGCHLD)
			reap(child);
		else if (about.si_signo != SIGTTIN && about.si_signo != SIGTTOU)
			kill(child, about.si_signo);
	}
}
