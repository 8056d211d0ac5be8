"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path


def write(path: Path, data: bytes | str, *, mode: int = 0o600, durable: bool = False) -> None:
    """Replaces ``path`` by ``data`` in one step (temporary file, rename).

    durable: also fsync the file and its folder, so it lasts over a power cut.
    """
    raw = data.encode() if isinstance(data, str) else data
    # a start writes several files: plain calls take a third of what pathlib and io do
    parent, name = os.path.split(path)
    temporary = os.path.join(parent, f".{name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            left = memoryview(raw)
            while left:
                left = left[os.write(fd, left) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        folder = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove(path: Path) -> None:
    """Removes a file or a whole folder; what is not there is fine. Never follows a link."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=False)
        else:
            path.unlink()
    except FileNotFoundError:
        pass


def folder(path: Path, mode: int = 0o700) -> Path:
    """Makes the folder (and those above it) if it is missing, and gives it back."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    return path


def disk_use(path: str) -> int:
    """Bytes on disk of a folder, links not followed, files of two names counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for base, _, names in os.walk(path):
        for name in names:
            try:
                facts = os.lstat(os.path.join(base, name))
            except OSError:
                continue
            if facts.st_nlink > 1:
                if (facts.st_dev, facts.st_ino) in seen:
                    continue
                seen.add((facts.st_dev, facts.st_ino))
            total += facts.st_blocks * 512
    return total
