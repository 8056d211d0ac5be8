"""Reading an instance's log: the format of Kubernetes' CRI, as conmon writes it.

    2026-11-28T13:00:00.123456789+00:00 stdout F a whole line
    2026-11-28T13:00:00.123456789+00:00 stderr P the beginning of a line

``F`` ends a line, ``P`` does not (the program had not written its newline yet).
Joined together, the data of one stream is byte for byte what the program wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import NamedTuple

from gemel.host.inotify import Event, Watch
from gemel.observe.logfile import Place, Reader, place_of, tail_offset
from gemel.observe.logline import LogLine, parse, parse_time

#: Longest time in seconds that a follower sleeps when the kernel tells it of no change.
IDLE = 5.0

_CHANGES = Event.MODIFY | Event.MOVE_SELF | Event.DELETE_SELF
_FOLDER_CHANGES = Event.CREATE | Event.MOVED_TO

__all__ = ["LogLine", "parse", "parse_time", "read", "read_batches", "tail_offset"]


class Selection(NamedTuple):
    """Which lines are wanted; times in nanoseconds since the epoch, until 0 means no end."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0

    def of(self, lines: list[LogLine]) -> list[LogLine]:
        """Those of ``lines`` that are wanted."""
        if self.stdout and self.stderr and not self.since_ns and not self.until_ns:
            return lines
        return [line for line in lines if self.wants(line)]

    def wants(self, line: LogLine) -> bool:
        """Whether the line is of a wanted stream and time."""
        return (
            (self.stdout if line.stream == 1 else self.stderr)
            and line.time_ns >= self.since_ns
            and (self.until_ns == 0 or line.time_ns <= self.until_ns)
        )


def read_batches(
    path: Path,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since_ns: int = 0,
    until_ns: int = 0,
    tail: int | None = None,
    follow: bool = False,
    ended: asyncio.Event | None = None,
) -> AsyncGenerator[list[LogLine], None]:
    """Wanted lines of the log at ``path``, many at a time, oldest first.

    tail: only so many from the end, as it is when this is called, not when the
    first is read (None: all). follow: goes on with what comes until ``ended`` is
    set and everything written by then is read, or until ``until_ns`` has passed.
    A log that is not there is empty.
    """
    selection = Selection(stdout, stderr, since_ns, until_ns)
    last = None if tail is None else (tail, place_of(path))
    return _batches(Reader(path), selection, last, follow, ended)


async def _batches(
    reader: Reader,
    selection: Selection,
    last: tuple[int, Place] | None,
    follow: bool,
    ended: asyncio.Event | None,
) -> AsyncGenerator[list[LogLine], None]:
    until_ns = selection.until_ns
    try:
        if not (reader.begin(selection.since_ns) if last is None else reader.open()):
            if not follow or not await _appears(reader, ended, until_ns):
                return
        elif last is not None:
            await asyncio.to_thread(reader.seek_tail, last[0], selection.wants, last[1])
        async for lines in _drain(reader):
            if chosen := selection.of(lines):
                yield chosen
            if until_ns and lines and lines[-1].time_ns > until_ns:
                return
        if follow:
            async for lines in _follow(reader, ended, until_ns):
                if chosen := selection.of(lines):
                    yield chosen
    finally:
        reader.close()


async def _drain(reader: Reader) -> AsyncIterator[list[LogLine]]:
    """Everything that is there now, the replacement of a replaced file too."""
    left = False
    while True:
        lines = await asyncio.to_thread(reader.next)
        if lines:
            yield lines
        elif lines is None and left:
            left = False
            if not reader.switch():
                return
        elif lines is None:
            # what was written between the last read and the replacement is still to be read
            left = reader.replaced()
            if not left:
                return


async def _follow(
    reader: Reader, ended: asyncio.Event | None, until_ns: int
) -> AsyncIterator[list[LogLine]]:
    """What comes from now on."""
    async with Watch() as watch, _waking(watch, ended):
        watch.add(reader.path.parent, _FOLDER_CHANGES)
        watched = 0
        while True:
            over = (ended is not None and ended.is_set()) or _passed(until_ns)
            if watched != reader.opened:
                watch.add(reader.path, _CHANGES)
                watched = reader.opened
            nothing = True
            async for lines in _drain(reader):
                nothing = False
                yield lines
            if over:
                return
            if nothing and watched == reader.opened:
                await watch.wait(_patience(until_ns))


async def _appears(reader: Reader, ended: asyncio.Event | None, until_ns: int) -> bool:
    """Waits for the log to come into being; False if it is over before."""
    async with Watch() as watch, _waking(watch, ended):
        watch.add(reader.path.parent, _FOLDER_CHANGES)
        while not reader.open():
            if (ended is not None and ended.is_set()) or _passed(until_ns):
                return reader.open()
            await watch.wait(min(0.1, _patience(until_ns)))
        return True


def _passed(until_ns: int) -> bool:
    return until_ns != 0 and time.time_ns() > until_ns


def _patience(until_ns: int) -> float:
    """Seconds until something may have to be done without a change of the file."""
    if until_ns == 0:
        return IDLE
    return min(IDLE, max(0.0, (until_ns - time.time_ns()) / 1e9) + 0.01)


@contextlib.asynccontextmanager
async def _waking(watch: Watch, ended: asyncio.Event | None) -> AsyncIterator[None]:
    """Lets the end of the instance wake the watch."""
    if ended is None:
        yield
        return

    async def wake() -> None:
        await ended.wait()
        watch.wake()

    task = asyncio.create_task(wake())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def read(
    path: Path,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since_ns: int = 0,
    until_ns: int = 0,
    tail: int | None = None,
    follow: bool = False,
    ended: asyncio.Event | None = None,
) -> AsyncGenerator[LogLine, None]:
    """The same as ``read_batches``, line by line."""
    batches = read_batches(
        path,
        stdout=stdout,
        stderr=stderr,
        since_ns=since_ns,
        until_ns=until_ns,
        tail=tail,
        follow=follow,
        ended=ended,
    )
    async with contextlib.aclosing(batches) as source:
        async for batch in source:
            for line in batch:
                yield line
