/* The process that looks at shared folders: inotify on each folder, found by walking. */
#ifndef GEMEL_RELAY_WATCHER_H
#define GEMEL_RELAY_WATCHER_H

#include <stdint.h>

#include "launch.h"

enum { WATCH_PATH_MOST = 3072, WATCH_NOTE = 255 };

/* What goes through the pipe, whole or not at all: followed by `length` bytes of a path in the
 * share, or, for the share WATCH_NOTE, of a remark for the log. */
struct watch_head {
    uint8_t share, zero;
    uint16_t length;
};

/* Does not return: ends when nobody reads the pipe any more. */
_Noreturn void watcher_run(const struct launch *launch, int pipe);

#endif
