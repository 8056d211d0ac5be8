"""Copying files that are mostly holes."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from gemel.errors import Failed

_FICLONE = 0x40049409


def copy(source: Path, target: Path, *, mode: int = 0o600) -> None:
    """Copies the data of ``source`` and keeps its holes; shares the blocks where the
    file system can. ``target`` appears whole or not at all. Raises Failed.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(source, "rb", buffering=0) as file:
            out = os.open(temporary, flags, mode)
            try:
                _copy(file.fileno(), out)
            finally:
                os.close(out)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Failed(f"cannot copy {source} to {target}", details=str(error)) from error


def _copy(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        pass  # not this file system: the data is copied
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            piece = os.pread(source, min(end - start, 1 << 20), start)
            if not piece:
                return
            os.pwrite(target, piece, start)
            start += len(piece)
        at = end
