"""Waits for files below folders to change (inotify(7)) and tells which; for a thread of its own."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Callable

from gemel.errors import Failed
from gemel.host.inotify import Event

_libc = ctypes.CDLL(None, use_errno=True)
_HEAD = struct.Struct("iIII")
_IS_FOLDER, _IGNORED, _OVERFLOW = 0x40000000, 0x8000, 0x4000
_EVENTS = Event.CLOSE_WRITE | Event.CREATE | Event.DELETE | Event.MOVED_FROM | Event.MOVED_TO
#: Seconds of quiet after which a burst of changes counts as over, and the longest burst.
QUIET, BURST = 0.05, 0.5


class TreeWatch:
    """Watches folders with all below them. skip: whether a folder (and all in it) is left out."""

    def __init__(self, roots: list[str], skip: Callable[[str], bool]) -> None:
        self._skip = skip
        self._roots = roots
        self._paths: dict[int, str] = {}
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _failed("files", ctypes.get_errno(), "instances")
        try:
            for root in roots:
                self._add(root, set())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the descriptor; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def changes(self, timeout: float) -> set[str]:
        """Paths that changed, came or went; empty after ``timeout`` seconds without any.

        A burst of changes is told at once. Raises Failed without room for more folders.
        """
        found: set[str] = set()
        if not select.select([self._fd], [], [], timeout)[0]:
            return found
        end = time.monotonic() + BURST
        while True:
            self._read(found)
            if time.monotonic() > end or not select.select([self._fd], [], [], QUIET)[0]:
                return found

    def _read(self, found: set[str]) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, size = _HEAD.unpack_from(data, at)
            name = os.fsdecode(data[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0"))
            at += _HEAD.size + size
            self._event(watch, mask, name, found)

    def _event(self, watch: int, mask: int, name: str, found: set[str]) -> None:
        if mask & _OVERFLOW:  # some were lost: all may have changed
            for root in self._roots:
                self._add(root, found)
            return
        if mask & _IGNORED:
            self._paths.pop(watch, None)
            return
        folder = self._paths.get(watch)
        if folder is None or not name:
            return
        path = os.path.join(folder, name)
        if not mask & _IS_FOLDER:
            found.add(path)
        elif mask & (Event.CREATE | Event.MOVED_TO):
            self._add(path, found)  # what is in it by now has come without an event
        else:
            found.add(path)

    def _add(self, path: str, found: set[str]) -> None:
        """Watches a folder and those below; all files in them are told as changed."""
        if self._skip(path):
            return
        watch = _libc.inotify_add_watch(self._fd, os.fsencode(path), int(_EVENTS))
        if watch < 0:
            code = ctypes.get_errno()
            if code in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                return
            raise _failed(path, code, "watches")
        self._paths[watch] = path
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        self._add(entry.path, found)
                    else:
                        found.add(entry.path)
        except OSError:
            return  # gone meanwhile


def _failed(what: str, code: int, limit: str) -> Failed:
    return Failed(
        f"cannot watch {what}",
        details=os.strerror(code),
        resolution=f"raise the sysctl fs.inotify.max_user_{limit}",
    )
