"""Which connections a proxy of gemel's own makes for which others: a table in shared memory.

The proxy enters a connection before its first packet leaves, so whoever sees that packet finds it
here, however long ago it has passed. There is a place for each port of the host, with the last two
connections from it: a port is one connection's at a time. What a process has entered that died
meanwhile holds no more.
"""

from __future__ import annotations

import math
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from gemel.host.procs import start_time

#: opened, closed (seconds since the epoch; closed 0: it is open), process and when that began,
#: number of the fault, whether it carries one request only, the connection that it is for.
_ENTRY = struct.Struct("=ddQII?3x12s")
_GENERATIONS, _PORTS = 2, 1 << 16
SIZE = _ENTRY.size * _GENERATIONS * _PORTS
"""Bytes of the file; only those of ports that were used take room."""
_OPENED, _CLOSED = struct.Struct("=d"), struct.Struct("=d")

Address = tuple[str, int]


class Carried(NamedTuple):
    """A connection of the proxy's.

    key: the connection that it carries on, as four bytes of each address, from and to, two of
    each port. once: for one request; else for all. opened: seconds since the epoch.
    """

    key: bytes
    fault: int
    once: bool
    opened: float


def place(run: Path) -> Path:
    """The file of an engine, by its folder of what runs."""
    return run / "carried"


def key(source: Address, target: Address) -> bytes:
    """How a connection is named here."""
    packed = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    return packed + struct.pack("!HH", source[1], target[1])


class _Shared:
    """The file, mapped. It is never shortened: another process has it mapped, too."""

    def __init__(self, path: Path, access: int) -> None:
        """access: as of mmap. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        try:
            if os.fstat(fd).st_size < SIZE:
                os.ftruncate(fd, SIZE)
            self._bytes = mmap.mmap(fd, SIZE, access=access)
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.close()

    @staticmethod
    def _at(port: int, generation: int) -> int:
        return (port * _GENERATIONS + generation) * _ENTRY.size


class Ledger(_Shared):
    """The side of the proxy, for one thread."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        super().__init__(path, mmap.ACCESS_WRITE)
        self._pid = os.getpid()
        self._started = start_time(self._pid)

    def socket(self, source: Address, target: Address, fault: int, *, once: bool) -> socket.socket:
        """A TCP socket to connect to ``target`` with, for the connection from ``source`` to it.

        It does not block. It is entered until it is closed; without a free port it is not.
        """
        made = _Entered(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            # a port that is nobody else's: without SO_REUSEADDR the kernel gives none that is used
            made.bind(("0.0.0.0", 0))
        except OSError:
            return made  # connect finds one that is free towards this target alone
        made.entry = self, self._enter(made.getsockname()[1], key(source, target), fault, once)
        return made

    def _enter(self, port: int, named: bytes, fault: int, once: bool) -> int:
        at = min(
            (self._at(port, generation) for generation in range(_GENERATIONS)),
            key=lambda at: float(_OPENED.unpack_from(self._bytes, at)[0]),
        )
        # while it is written it holds for no time
        entry = (0.0, self._started, self._pid, fault & 0xFFFFFFFF, once, named)
        _ENTRY.pack_into(self._bytes, at, math.inf, *entry)
        _OPENED.pack_into(self._bytes, at, time.time())
        return at

    def leave(self, at: int) -> None:
        """The connection is about to be closed."""
        _CLOSED.pack_into(self._bytes, at + _OPENED.size, time.time())


class _Entered(socket.socket):
    """Leaves the ledger before it closes."""

    entry: tuple[Ledger, int] | None = None

    def close(self) -> None:
        """May be called twice."""
        entry, self.entry = self.entry, None
        if entry is not None:
            entry[0].leave(entry[1])
        super().close()


class Reader(_Shared):
    """The side of who sees packets. What stands there is not trusted: it is what a proxy says."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        super().__init__(path, mmap.ACCESS_READ)

    def find(self, port: int, at: float) -> Iterator[Carried]:
        """The connections that a proxy had from a port of the host at a moment (since the epoch):
        one, as a rule."""
        for generation in range(_GENERATIONS):
            opened, closed, started, pid, fault, once, named = _ENTRY.unpack_from(
                self._bytes, self._at(port, generation)
            )
            if not 0.0 < opened <= at or 0.0 < closed < at:
                continue
            if closed or (started and start_time(pid) == started):
                yield Carried(named, fault, once, opened)
