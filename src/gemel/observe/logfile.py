"""An open log: its tail found, read on over its replacement by another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gemel.observe import rotated
from gemel.observe.logline import LogLine, parse

#: Bytes that are read at once.
CHUNK = 256 << 10


def tail_offset(
    fd: int, size: int, count: int, wants: Callable[[LogLine], bool]
) -> tuple[int, int]:
    """Where the last ``count`` wanted lines begin, reading backwards from ``size``; how many
    there are from there on."""
    if count <= 0:
        return size, 0
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
                    return offset, seen
                seen += 1
            offset -= len(line)
    return 0, seen


Place = tuple[int, int, int]
"""Device and inode of a log and how long it was: a point in it."""


def place_of(path: Path) -> Place:
    """The end of the log now; of one that is not there, before the first byte."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (facts.st_dev, facts.st_ino, facts.st_size)


class Reader:
    """An open log file and the place reached in it; follows its replacement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.opened = 0  # how often: descriptors' numbers come again
        self.position = 0
        self.carry = b""

    def open(self) -> bool:
        """Opens the file that is written now; False without one."""
        return self._open(self.path)

    def begin(self, since_ns: int) -> bool:
        """Opens the oldest file that may hold lines from then on; False without one."""
        for path, _ in rotated.chain(self.path):
            if self._open(path):
                if os.fstat(self.fd).st_mtime_ns >= since_ns or path == self.path:
                    return True
                self.close()
        return self.open()

    def _open(self, path: Path) -> bool:
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.opened += 1
        self.position, self.carry = 0, b""
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def seek_tail(self, count: int, wants: Callable[[LogLine], bool], before: Place) -> None:
        """Goes to the last ``count`` of the lines that were there when ``before`` was taken."""
        files = rotated.chain(self.path)
        places = [place for place, (_, inode) in enumerate(files) if inode == before[:2]]
        for place in range(places[0], -1, -1) if places else ():
            self.close()
            if not self._open(files[place][0]):
                break
            size = os.fstat(self.fd).st_size
            if place == places[0]:
                size = min(before[2], size)
            self.position, seen = tail_offset(self.fd, size, count, wants)
            count -= seen
            if count <= 0:
                break
        if self.fd < 0:
            self.open()

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
        """Opens the file that was written after the open one."""
        mine = os.fstat(self.fd)
        self.close()
        files = rotated.chain(self.path)
        inodes = [inode for _, inode in files]
        known = (mine.st_dev, mine.st_ino)
        after = inodes.index(known) + 1 if known in inodes else 0
        return any(self._open(path) for path, _ in files[after:])
