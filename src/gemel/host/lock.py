"""One process at a time: a lock that ends with its holder, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from gemel.errors import Conflict


class Lock:
    """A held lock (flock on a file that names the holder)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Lets it go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def holder(path: Path) -> int | None:
    """Process id that the file names; None if it names none."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def acquire(path: Path, what: str) -> Lock:
    """Takes the lock at once. Raises Conflict with the holder if somebody has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        by = holder(path)
        raise Conflict(
            f"{what} is running already" + (f" (process {by})" if by else ""),
            details=f"it holds {path}",
            resolution="use it, stop it, or choose another --run-dir",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return Lock(fd)


def wait_free(path: Path, timeout: float) -> bool:
    """Waits until nobody holds the lock, or another has it. False if ``timeout`` (s) is over."""
    first = holder(path)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if holder(path) != first:
                return True
        finally:
            os.close(fd)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
