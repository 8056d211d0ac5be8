#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writes the bytes from `at` to `end` of the mapped file. */
static bool copy_part(const char *content, int to, off_t at, off_t end)
{
    while (at < end) {
        ssize_t done = pwrite(to, content + at, (size_t)(end - at), at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        at += done;
    }
    return true;
}

/* The parts that hold something: of the guest's memory that is a sixth. */
static bool copy_all(int from, const char *content, int to, off_t size)
{
    off_t end, at = lseek(from, 0, SEEK_DATA);
    while (at >= 0 && at < size) {
        end = lseek(from, at, SEEK_HOLE);
        if (end < 0 || !copy_part(content, to, at, end))
            return false;
        at = lseek(from, end, SEEK_DATA);
    }
    return at >= 0 || errno == ENXIO;
}

bool memory_fill(int from, int to)
{
    struct stat facts;
    if (fstat(from, &facts) != 0 || ftruncate(to, facts.st_size) != 0)
        return false;
    char *content = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_SHARED, from, 0);
    if (content == MAP_FAILED)
        return false;
    bool done = copy_all(from, content, to, facts.st_size);
    int error = errno;
    munmap(content, (size_t)facts.st_size);
    errno = error;
    return done;
}

int memory_copy(int from)
{
    int to = memfd_create("gemel-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (to < 0)
        return -1;
    if (memory_fill(from, to) && fcntl(to, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0)
        return to;
    int error = errno;
    close(to);
    errno = error;
    return -1;
}
