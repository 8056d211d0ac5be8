#include "console.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "wire.h"

/* Beginnings of the kernel's lines that tell what is wrong; the rest are registers and calls. */
static const char *const telling[] = {"Kernel panic", "BUG:", "Oops:", "RIP: 0010:", "general protection",
                                      "Out of memory", "watchdog:"};

/* The text of a line without its time. */
static const char *text_of(const char *line)
{
    const char *end = *line == '[' ? strstr(line, "] ") : NULL;
    return end ? end + 2 : line;
}

static void note(struct console *c, const char *text)
{
    size_t used = strlen(c->said);
    for (size_t i = 0; i < sizeof telling / sizeof *telling; i++) {
        if (strncmp(text, telling[i], strlen(telling[i])) != 0)
            continue;
        if (strstr(c->said, text)) /* a panic tells where it happened twice */
            return;
        snprintf(c->said + used, sizeof c->said - used, "%s%s", used ? "; " : "", text);
        return;
    }
}

static void take_line(struct console *c, int log, size_t *room)
{
    char clean[CONSOLE_LINE + 1];
    clean_text(clean, sizeof clean, (const unsigned char *)c->line, c->used);
    size_t n = strlen(clean);
    c->used = 0;
    if (!n)
        return;
    note(c, text_of(clean));
    if (log >= 0 && *room > n + 10 && dprintf(log, "kernel: %s\n", clean) > 0)
        *room -= n + 10;
}

void console_read(struct console *c, int log, size_t *room)
{
    char text[4096];
    ssize_t got = read(c->fd, text, sizeof text);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        console_close(c);
        return;
    }
    for (ssize_t i = 0; i < got; i++) {
        if (text[i] != '\n')
            c->line[c->used++] = text[i];
        if (text[i] == '\n' || c->used == sizeof c->line)
            take_line(c, log, room);
    }
}

void console_close(struct console *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->used = 0;
}
