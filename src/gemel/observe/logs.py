"""Reading an instance's log: the format of Kubernetes' CRI, as conmon writes it.

    2026-11-28T13:00:00.123456789+00:00 stdout F a whole line
    2026-11-28T13:00:00.123456789+00:00 stderr P the beginning of a line

``F`` ends a line, ``P`` does not (the program had not written its newline yet).
Joined together, the data of one stream is byte for byte what the program wrote.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from gemel.host.inotify import Event, Watch

#: Bytes that are read at once.
CHUNK = 256 << 10

#: Longest time in seconds that a follower sleeps when the kernel tells it of no change.
IDLE = 5.0

_CHANGES = Event.MODIFY | Event.MOVE_SELF | Event.DELETE_SELF
_FOLDER_CHANGES = Event.CREATE | Event.MOVED_TO


class LogLine(NamedTuple):
    """A piece of output. stream: 1 or 2; data: with its newline, unless it is partial."""

    stream: int
    time_ns: int
    data: bytes


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


_seconds: dict[bytes, int] = {}


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with any fraction; -1 if it is none."""
    head = text[:19]
    seconds = _seconds.get(head)
    try:
        if seconds is None:
            seconds = calendar.timegm(time.strptime(head.decode("ascii"), "%Y-%m-%dT%H:%M:%S"))
            if len(_seconds) > 4096:
                _seconds.clear()
            _seconds[head] = seconds
        if len(text) == 35 and text.endswith(b"+00:00"):
            return seconds * 1_000_000_000 + int(text[20:29])
        return seconds * 1_000_000_000 + _rest(text[19:])
    except ValueError:
        return -1


def _rest(text: bytes) -> int:
    """Nanoseconds of a fraction and a zone: ``.123+01:00``, ``Z``."""
    fraction, zone = text, b""
    for mark in (b"Z", b"+", b"-"):
        if mark in text:
            at = text.index(mark)
            fraction, zone = text[:at], text[at:]
            break
    nanoseconds = int(fraction[1:10].ljust(9, b"0")) if fraction else 0
    if len(zone) == 6:
        minutes = int(zone[1:3]) * 60 + int(zone[4:6])
        offset = minutes * 60_000_000_000
        nanoseconds += offset if zone[:1] == b"-" else -offset
    return nanoseconds


_CONMON = (b"+00:00 stdout ", b"+00:00 stderr ")


def parse(data: bytes) -> list[LogLine]:
    """Lines of the log in ``data``, which ends with a newline.

    What is no line of the format (torn by a crash) comes as standard output.
    """
    found: list[LogLine] = []
    last_time = 0
    second, start = b"", 0
    for raw in data.split(b"\n")[:-1]:
        # conmon writes all lines in one width, most of them in the same second as
        # the line before: told apart by place, this is three times as fast
        regular = raw[29:43] in _CONMON and raw[44:45] == b" "
        if regular and raw[:19] == second:
            nanoseconds = raw[20:29]
            if nanoseconds.isdigit():
                last_time = start + int(nanoseconds)
                text = raw[45:] if raw[43:44] == b"P" else raw[45:] + b"\n"
                found.append(LogLine(1 if raw[39:40] == b"o" else 2, last_time, text))
                continue
        parts = raw.split(b" ", 3)
        if len(parts) == 4 and parts[1] in (b"stdout", b"stderr"):
            moment = parse_time(parts[0])
            if moment >= 0:
                last_time = moment
                if regular:
                    second, start = raw[:19], moment - moment % 1_000_000_000
                text = parts[3] if parts[2][:1] == b"P" else parts[3] + b"\n"
                found.append(LogLine(1 if parts[1] == b"stdout" else 2, moment, text))
                continue
        found.append(LogLine(1, last_time, raw + b"\n"))
    return found


def tail_offset(fd: int, size: int, count: int, wants: Callable[[LogLine], bool]) -> int:
    """Where the last ``count`` wanted lines begin, reading backwards from ``size``."""
    if count <= 0:
        return size
    seen = 0
    position, carry = size, b""
    newest = True
    while position > 0:
        step = min(64 << 10, position)
        position -= step
        block = os.pread(fd, step, position) + carry
        begin = 0
        if position > 0:
            begin = block.find(b"\n") + 1
            if begin == 0:
                carry = block
                continue
        carry = block[:begin]
        offset = position + len(block)
        for line in reversed(block[begin:].splitlines(keepends=True)):
            parsed = parse(line) if line.endswith(b"\n") else []
            if parsed and wants(parsed[0]) and (newest or parsed[0].data.endswith(b"\n")):
                newest = False
                if seen == count:
                    return offset
                seen += 1
            offset -= len(line)
    return 0


_Place = tuple[int, int, int]
"""Device and inode of a log and how long it was: a point in it."""


def _place(path: Path) -> _Place:
    """The end of the log now; of one that is not there, before the first byte."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (facts.st_dev, facts.st_ino, facts.st_size)


class _Reader:
    """An open log file and the place reached in it; follows its replacement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.opened = 0  # how often: descriptors' numbers come again
        self.position = 0
        self.carry = b""

    def open(self) -> bool:
        """Opens the file that is there now; False without one."""
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.opened += 1
        self.position, self.carry = 0, b""
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def seek_tail(self, count: int, wants: Callable[[LogLine], bool], before: _Place) -> None:
        """Goes to the last ``count`` of the lines that were there when ``before`` was taken."""
        now = os.fstat(self.fd)
        if before[:2] == (now.st_dev, now.st_ino):
            self.position = tail_offset(self.fd, min(before[2], now.st_size), count, wants)

    def next(self) -> list[LogLine] | None:
        """The next lines (may be none if only a part of one was there); None at the end."""
        if self.fd < 0 and not self.open():
            return None
        data = os.pread(self.fd, CHUNK, self.position)
        if not data:
            if os.fstat(self.fd).st_size < self.position:  # cut off and begun anew
                self.position, self.carry = 0, b""
                return []
            return None
        self.position += len(data)
        data = self.carry + data
        end = data.rfind(b"\n") + 1
        self.carry = data[end:]
        return parse(data[:end])

    def replaced(self) -> bool:
        """Whether another file lies at the path now: the writer has left the open one."""
        if self.fd < 0:
            return False
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self.fd)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def switch(self) -> bool:
        """Opens the file that lies at the path now."""
        self.close()
        return self.open()


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
    last = None if tail is None else (tail, _place(path))
    return _batches(_Reader(path), selection, last, follow, ended)


async def _batches(
    reader: _Reader,
    selection: Selection,
    last: tuple[int, _Place] | None,
    follow: bool,
    ended: asyncio.Event | None,
) -> AsyncGenerator[list[LogLine], None]:
    until_ns = selection.until_ns
    try:
        if not reader.open():
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


async def _drain(reader: _Reader) -> AsyncIterator[list[LogLine]]:
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
    reader: _Reader, ended: asyncio.Event | None, until_ns: int
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


async def _appears(reader: _Reader, ended: asyncio.Event | None, until_ns: int) -> bool:
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
