"""Descriptors read and written by the event loop, pulled by the reader: no hidden buffer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Sequence

from gemel.errors import Failed

#: Bytes read at once; a pipe holds as many.
CHUNK = 65536


class Descriptor:
    """A descriptor of ours (pipe, terminal, socket), one reader and one writer at a time.

    Closing it wakes both: the reader has the end, the writer Failed.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    def read_some(self) -> bytes | None:
        """What is there now; ``b""`` at the end, None if one has to wait.

        EIO is the end of a terminal, a reset the end of a socket.
        """
        if self.fd < 0:
            return b""
        try:
            return os.read(self.fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EIO, errno.ECONNRESET):
                return b""
            raise

    async def read(self) -> bytes:
        """The next bytes; ``b""`` at the end."""
        while (data := self.read_some()) is None:
            await readable([self])
        return data

    async def write_all(self, data: bytes, piece: int = 1 << 20) -> None:
        """Writes everything, at most ``piece`` bytes at once, waiting while it is full.

        Raises Failed if nobody reads any more.
        """
        view = memoryview(data)
        while view:
            if self.fd < 0:
                raise Failed("standard input is closed")
            try:
                view = view[os.write(self.fd, view[:piece]) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise Failed("standard input is closed", details=str(error)) from error

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        fd, ready = self.fd, loop.create_future()
        self._writing = ready
        loop.add_writer(fd, _resolve, ready)
        try:
            await ready
        finally:
            self._writing = None
            if self.fd == fd:
                loop.remove_writer(fd)

    def start_reading(self, ready: asyncio.Future[None]) -> None:
        """Resolves ``ready`` once there is something to read, or the end."""
        if self.fd < 0:
            _resolve(ready)
            return
        self._reading = ready
        asyncio.get_running_loop().add_reader(self.fd, _resolve, ready)

    def stop_reading(self) -> None:
        """Ends what ``start_reading`` began."""
        if self._reading is not None:
            self._reading = None
            asyncio.get_running_loop().remove_reader(self.fd)

    def wake(self) -> None:
        """Has a waiting reader look again."""
        if self._reading is not None:
            _resolve(self._reading)

    def close(self) -> None:
        """Closes it; may be called twice."""
        if self.fd < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.fd)
        loop.remove_writer(self.fd)
        os.close(self.fd)
        self.fd = -1
        for waiter in (self._reading, self._writing):
            if waiter is not None:
                _resolve(waiter)
        self._reading = None


async def readable(descriptors: Sequence[Descriptor], timeout: float | None = None) -> None:
    """Waits until one of them can be read or is at its end. Raises TimeoutError."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for descriptor in descriptors:
        descriptor.start_reading(ready)
    try:
        async with asyncio.timeout(timeout):
            await ready
    finally:
        for descriptor in descriptors:
            descriptor.stop_reading()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def read_line(fd: int, timeout: float) -> bytes:
    """Reads until a newline or the end, at most 64 KiB, and closes it. Raises TimeoutError."""
    descriptor = Descriptor(fd)
    data = b""
    try:
        async with asyncio.timeout(timeout):
            while b"\n" not in data and len(data) < CHUNK:
                piece = await descriptor.read()
                if not piece:
                    break
                data += piece
    finally:
        descriptor.close()
    return data


def close(*fds: int) -> None:
    """Closes those that are not negative."""
    for fd in fds:
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
