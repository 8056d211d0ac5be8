/* Who a program runs as: Docker's rules on an image's passwd and group files. Pure. */
#ifndef GEMEL_USERS_H
#define GEMEL_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GROUPS_MAX 256

struct user {
	uint32_t uid;
	uint32_t gid;
	uint32_t groups[GROUPS_MAX];
	size_t group_count;
	char home[256];
};

/* Resolves `spec` ("", name, uid, user:group) and the further groups.
 * passwd, group: the files' content, NULL without one; need not end in a NUL.
 * False: `error` says why, in Docker's words. */
bool user_resolve(const char *spec, char *const *more, size_t more_count, const char *passwd,
		  size_t passwd_length, const char *group, size_t group_length, struct user *out,
		  char *error, size_t error_size);

/* The name of `uid` in a passwd file; false if it has none. */
bool user_name(uint32_t uid, const char *passwd, size_t length, char *out, size_t size);

#endif
