"""Waiting for a file or folder to change (inotify(7)), without polling."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from enum import IntFlag
from pathlib import Path
from types import TracebackType

from gemel.errors import Failed

_libc = ctypes.CDLL(None, use_errno=True)


class Event(IntFlag):
    """What to watch for (a selection of inotify's masks)."""

    MODIFY = 0x2
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800


class Watch:
    """One inotify descriptor of the running event loop; ``async with`` or ``close``.

    Which of the paths changed is not told: whoever waits looks again himself.
    """

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise Failed(
                "cannot watch files",
                details=f"inotify_init: {os.strerror(code)}",
                resolution="raise the sysctl fs.inotify.max_user_instances",
            )
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable)

    def add(self, path: Path, events: Event) -> bool:
        """Watches ``path`` too; False if it is not there. Raises Failed without room."""
        if _libc.inotify_add_watch(self._fd, os.fsencode(path), int(events)) >= 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise Failed(
            f"cannot watch {path}",
            details=f"inotify_add_watch: {os.strerror(code)}",
            resolution="raise the sysctl fs.inotify.max_user_watches",
        )

    async def wait(self, timeout: float) -> bool:
        """Waits for a change since the last call, at most ``timeout`` seconds; whether one came."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def wake(self) -> None:
        """Makes ``wait`` return as if something had changed."""
        self._changed.set()

    def close(self) -> None:
        """Lets go of the descriptor; may be called twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                self._changed.set()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
