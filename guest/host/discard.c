/* Preloaded into the VMM of a clone: lets the guest's freed memory go.
 *
 * A clone maps its template's memory privately. When its guest reports pages as free, QEMU
 * punches a hole into the file and then drops its own copies. The file is the template's,
 * sealed and shared with the other clones, so the hole is refused, and QEMU would keep the
 * copies too. Here the hole is skipped, for sealed files only: the copies are dropped, and what
 * the guest finds in a reported page (anything, by the device's rules) is what the template had.
 *
 * And it keeps QEMU from asking for a huge page for what is no bigger than one: of its ACPI tables'
 * two megabytes, in each clone, a few kilobytes are used. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int fallocate(int fd, int mode, off_t offset, off_t length);
int fallocate64(int fd, int mode, off64_t offset, off64_t length);

static bool sealed(int fd)
{
	int before = errno;
	int seals = fcntl(fd, F_GET_SEALS);

	errno = before; /* other files have no seals */
	return seals >= 0 && (seals & F_SEAL_WRITE);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	if ((mode & FALLOC_FL_PUNCH_HOLE) && sealed(fd))
		return 0;
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return fallocate64(fd, mode, offset, length);
}

#define HUGE_PAGE ((size_t)2 << 20)

int madvise(void *address, size_t length, int advice)
{
	if (advice == MADV_HUGEPAGE && length <= HUGE_PAGE)
		return 0;
	return (int)syscall(SYS_madvise, address, length, advice);
}
