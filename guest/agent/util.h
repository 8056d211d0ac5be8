/* Small things that every part uses. */
#ifndef GEMEL_UTIL_H
#define GEMEL_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grown list of owned strings, NULL-terminated. */
struct list {
	char **at;
	size_t count;
};

bool list_add(struct list *list, char *owned);
void list_free(struct list *list);

/* malloc that ends the guest rather than return NULL: PID 1 has no one to tell. */
void *must_alloc(size_t size);

/* Writes `text` to a file that exists (of /proc, /sys); 0 or -1 with errno. */
int put_file(const char *path, const char *text);

/* Reads at most size-1 bytes and ends them with a NUL; their number, or -1. */
long get_file(const char *path, char *out, size_t size);

/* Reads a whole file of at most `most` bytes; NULL without one. Caller frees. */
char *get_whole(const char *path, size_t most, size_t *length);

bool make_folders(const char *path, unsigned mode);

int64_t now_ms(void);

/* Notes what cannot be done with which thing, and what errno says; false. */
bool cannot(char *error, size_t size, const char *what, const char *which);

/* A line on the console, for the eyes of whoever looks at the VM's serial port. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says why and ends the VM. */
void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
