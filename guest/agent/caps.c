#include "caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <stddef.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In the order of their numbers (linux/capability.h). */
static const char *const names[] = {
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID",
	"SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN",
	"NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
	"SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
};

#define COUNT (sizeof names / sizeof *names)

bool cap_bit(const char *name, uint64_t *bit)
{
	if (strncasecmp(name, "CAP_", 4) == 0)
		name += 4;
	for (size_t i = 0; i < COUNT; i++)
		if (strcasecmp(name, names[i]) == 0) {
			*bit = 1ull << i;
			return true;
		}
	return false;
}

uint64_t cap_all(void)
{
	uint64_t all = 0;

	for (int i = 0; i < 64 && prctl(PR_CAPBSET_READ, i) == 1; i++)
		all |= 1ull << i;
	return all;
}

int cap_bound(uint64_t allowed)
{
	for (int i = 0; i < 64; i++) {
		if (allowed >> i & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, i) < 0) {
			if (errno == EINVAL)
				break; /* past the kernel's last */
			return -1;
		}
	}
	return 0;
}

int cap_set(uint64_t allowed)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {
		{(uint32_t)allowed, (uint32_t)allowed, 0},
		{(uint32_t)(allowed >> 32), (uint32_t)(allowed >> 32), 0},
	};

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return (int)syscall(SYS_capset, &head, data);
}
