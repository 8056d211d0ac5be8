"""Processes by their id, safe against ids that come again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
from collections.abc import Iterable

_HERTZ = os.sysconf("SC_CLK_TCK")


def start_time(pid: int) -> int:
    """When the process began, in ticks since boot: with the pid it is unique.

    0: there is none, or it has ended and only waits to be reaped.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(fd, 4096)
    except OSError:  # it ended in between
        return 0
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in b"ZX" else int(fields[19])


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time in nanoseconds that processes have used so far; one that is gone counts nothing."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read(4096).rpartition(b")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks * (1_000_000_000 // _HERTZ)


class Handle:
    """A process that is not ours to reap: signals and its end, through a pidfd."""

    def __init__(self, pid: int, started: int = 0) -> None:
        """started: what ``start_time`` told of it, 0 for whatever has the pid now.

        Raises ProcessLookupError if it runs no more.
        """
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        now = start_time(pid)
        if now == 0 or (started and now != started):
            self.close()
            raise ProcessLookupError(pid)
        self.started = now

    def send(self, signal: int) -> None:
        """Sends a signal; fine if it has ended. Raises OSError for a signal that is none."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._fd, signal)

    async def ended(self) -> None:
        """Waits for its end, as long as it takes. One waiter at a time."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def ready() -> None:
            loop.remove_reader(self._fd)
            if not over.done():
                over.set_result(None)

        loop.add_reader(self._fd, ready)
        try:
            await over
        finally:
            if self._fd >= 0:
                loop.remove_reader(self._fd)

    def close(self) -> None:
        """Lets go of it; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def inner_pid(pid: int) -> int:
    """A process's id in the innermost pid namespace that it is in; 1 if it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        pass
    return 1
