"""Connections to a container's first process, through conmon's attach socket.

The socket keeps the borders of messages (SOCK_SEQPACKET): the first byte of what comes
is the stream, what is sent goes to standard input as it is. conmon ends standard input
when a client goes away; so that a client may leave and come back, as under Docker, the
sending half of a connection without ``close_stdin`` is kept until the container ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from gemel.errors import Failed
from gemel.host.pipes import Descriptor

#: conmon's number of standard error (standard output is 2).
_STDERR = 3

#: conmon reads at most 32 KiB of a message and drops the rest; smaller ones interleave better.
PIECE = 8192


class AttachStream:
    """``Stream`` of the first process. Made before the start too, and connected by it."""

    def __init__(self, control: Path, keep: Callable[[int], None]) -> None:
        """keep: takes the descriptor of a connection whose standard input stays open."""
        self._stdin = False
        self._tty = False
        self._control = control
        self._keep = keep
        self._socket: Descriptor | None = None
        self._ready = asyncio.Event()
        self._ended_input = False
        self._closed = False

    def connect(self, folder: Path, *, stdin: bool, tty: bool) -> None:
        """Connects to conmon, whose socket is in ``folder``. Raises Failed.

        stdin: whether the program's standard input is open; tty: whether it has a terminal.
        """
        self._stdin, self._tty = stdin, tty
        if self._closed or self._socket is not None:
            return
        connection = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        folder_fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            # by way of /proc: the path of a socket has at most 107 bytes
            connection.connect(f"/proc/self/fd/{folder_fd}/attach")
        except OSError as error:
            connection.close()
            raise Failed("cannot attach to the container", details=str(error)) from error
        finally:
            os.close(folder_fd)
        self._socket = Descriptor(connection.detach())
        self._ready.set()

    def abandon(self) -> None:
        """The start failed: there will be nothing to read."""
        self._closed = True
        self._ready.set()

    async def read(self) -> tuple[int, bytes] | None:
        await self._ready.wait()
        if self._socket is None:
            return None
        data = await self._socket.read()
        if not data:
            return None
        return (2 if data[0] == _STDERR else 1), data[1:]

    async def write(self, data: bytes) -> None:
        await self._ready.wait()
        if self._socket is None or self._ended_input:
            raise Failed("standard input is closed")
        if self._stdin:  # without one conmon reads from nobody
            await self._socket.write_all(data, PIECE)

    async def close_stdin(self) -> None:
        await self._ready.wait()
        if self._ended_input or self._tty or self._socket is None or not self._stdin:
            return
        self._ended_input = True
        _shutdown(self._socket.fd, socket.SHUT_WR)

    async def resize(self, rows: int, columns: int) -> None:
        await self._ready.wait()
        if self._tty:
            resize(self._control, rows, columns)

    async def close(self) -> None:
        self._closed = True
        self._ready.set()
        if self._socket is None:
            return
        if self._stdin and not self._ended_input and not self._tty and self._socket.fd >= 0:
            _shutdown(self._socket.fd, socket.SHUT_RD)
            self._keep(os.dup(self._socket.fd))
        self._socket.close()


def _shutdown(fd: int, how: int) -> None:
    with contextlib.suppress(OSError):
        twin = socket.socket(fileno=os.dup(fd))
        try:
            twin.shutdown(how)
        finally:
            twin.close()


def resize(control: Path, rows: int, columns: int) -> None:
    """Has conmon set the size of the terminal. Raises Failed if it is gone."""
    try:
        fd = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Failed("the container has no terminal now", details=str(error)) from error
    try:
        os.write(fd, b"1 %d %d\n" % (min(rows, 1000), min(columns, 1000)))
    except OSError as error:
        raise Failed("cannot resize the terminal", details=str(error)) from error
    finally:
        os.close(fd)
