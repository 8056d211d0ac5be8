/* What the guest's kernel says on its console: its last words when it dies. */
#ifndef GEMEL_RELAY_CONSOLE_H
#define GEMEL_RELAY_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

enum { CONSOLE_LINE = 256, CONSOLE_SAID = 600 };

struct console {
    int fd; /* -1 without a guest */
    char line[CONSOLE_LINE]; /* not whole yet */
    size_t used;
    char said[CONSOLE_SAID]; /* of what went wrong, the lines that tell it */
};

/* Reads what there is; whole lines go to `log` (-1: nowhere), *room bytes of it at most. */
void console_read(struct console *console, int log, size_t *room);

void console_close(struct console *console);

#endif
