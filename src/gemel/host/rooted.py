"""Opening paths inside a root that somebody else fills, never leaving it.

A container's or an image's file system is not trusted: it may hold links to
``/etc`` or ``../..``, changed while we look. ``openat2(2)`` with RESOLVE_IN_ROOT
has the kernel resolve every link as if the root were ``/``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_OPENAT2 = 437
_NO_MAGICLINKS = 0x02
_IN_ROOT = 0x10


@contextlib.contextmanager
def root(path: str | Path) -> Iterator[int]:
    """A descriptor of the root folder ``path`` (O_PATH), for as long as the block runs."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def open_in(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """open(2) of ``path`` with ``root_fd`` as its ``/``. Raises OSError."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, _IN_ROOT | _NO_MAGICLINKS)
    raw = os.fsencode(path.lstrip("/") or ".")
    for _ in range(128):
        fd = int(_libc.syscall(_OPENAT2, root_fd, raw, how, ctypes.c_size_t(len(how))))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # a rename somewhere raced with ".."
            break
    raise OSError(code, os.strerror(code), path)


def read_in(root_fd: int, path: str, limit: int = 4 << 20) -> bytes:
    """The first ``limit`` bytes of a regular file; empty if it is not there or is none."""
    try:
        fd = open_in(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def make_folders(root_fd: int, path: str, mode: int = 0o755) -> None:
    """mkdir -p inside the root. Raises OSError (NotADirectoryError if a file is in the way)."""
    done = ""
    for part in path.strip("/").split("/"):
        if part in ("", "."):
            continue
        above, done = done, f"{done}/{part}"
        try:
            os.close(open_in(root_fd, done, os.O_PATH | os.O_DIRECTORY))
            continue
        except FileNotFoundError:
            pass
        parent = open_in(root_fd, above or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, mode, dir_fd=parent)
        finally:
            os.close(parent)
        # a dangling link has that name: the kernel's reason is the right one to raise
        os.close(open_in(root_fd, done, os.O_PATH | os.O_DIRECTORY))
