"""A toolbox beside a micro VM's service: its image is a disk that the guest reads as it needs it.

A running micro VM can be given no further disk, and 100 MB of tools in its memory would
be more than many services have. So the image comes as a network block device (nbd) over
a session of the agent's channel: the guest asks for the blocks that it reads, and they
are in its page cache, which is given back when memory is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

from gemel.errors import Failed, GemelError
from gemel.model.instance import Process
from gemel.runtime.microvm import setup
from gemel.runtime.microvm.channel import Session
from gemel.runtime.microvm.protocol import FIRST_EXEC, ToGuest, message

log = logging.getLogger("gemel.microvm")

#: Seconds until a program of the toolbox must run: the guest mounts it first.
PATIENCE = 45.0
BLOCK = 4096
#: Bytes that a guest may ask for at once.
READ_MOST = 1 << 20
#: Formats of the kernel's linux/nbd.h.
_REQUEST = struct.Struct(">II8sQI")
_REPLY = struct.Struct(">II8s")
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_READ, _DISCONNECT, _FLUSH = 0, 2, 3
_EPERM, _EIO, _EINVAL = 1, 5, 22


class Requests:
    """Takes the guest's questions as their bytes come. Raises Failed for what is none."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes, int, int]]:
        """(command, handle, offset, length) of each whole one."""
        self._buffer += data
        found = []
        at = 0
        while len(self._buffer) - at >= _REQUEST.size:
            magic, kind, handle, offset, length = _REQUEST.unpack_from(self._buffer, at)
            if magic != _REQUEST_MAGIC or (length > READ_MOST and kind & 0xFFFF == _READ):
                raise Failed("the guest asks its disk for what cannot be")
            if kind & 0xFFFF not in (_READ, _DISCONNECT, _FLUSH):
                raise Failed("the guest writes to a disk that is read-only")
            found.append((kind & 0xFFFF, handle, offset, length))
            at += _REQUEST.size
        del self._buffer[:at]
        return found


def answer(fd: int, size: int, request: tuple[int, bytes, int, int]) -> bytes:
    """The answer to one question. size: bytes of the disk, which may be padded with zeros."""
    kind, handle, offset, length = request
    if kind != _READ:
        return _REPLY.pack(_REPLY_MAGIC, 0, handle)
    if offset + length > size:
        return _REPLY.pack(_REPLY_MAGIC, _EINVAL, handle)
    try:
        data = os.pread(fd, length, offset)
    except OSError:
        return _REPLY.pack(_REPLY_MAGIC, _EIO, handle)
    return _REPLY.pack(_REPLY_MAGIC, 0, handle) + data.ljust(length, b"\0")


class Disk:
    """The toolbox's image as one guest's disk, for as long as a debug session needs it."""

    def __init__(self, image: Path, keep: bool) -> None:
        """keep: until the VM ends, since a debugged process goes on using libraries from it, and
        with them the guest's mount of it stays: one whose disk is gone is good for nothing more."""
        self.image = image
        self.keep = keep
        self.users = 0
        self._session = Session(FIRST_EXEC, tty=True)
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._task is not None and not self._task.done()

    async def open(self, folder: Path, over: Callable[[], object]) -> None:
        """Hands it to the guest. over: called when it is gone. Raises NotFound, Failed."""
        fd = os.open(self.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = -(-os.fstat(fd).st_size // BLOCK) * BLOCK
            frames = list(message(FIRST_EXEC, ToGuest.EXEC, [("disk", str(size))]))
            await self._session.open(folder, frames)
            self._task = asyncio.create_task(self._serve(fd, size))
            self._task.add_done_callback(lambda _: over())
        except BaseException:
            os.close(fd)
            raise

    async def _serve(self, fd: int, size: int) -> None:
        requests = Requests()
        try:
            while (piece := await self._session.read()) is not None:
                for request in requests.feed(piece[1]):
                    if request[0] == _DISCONNECT:
                        return
                    await self._session.write(await asyncio.to_thread(answer, fd, size, request))
        except GemelError as error:
            log.warning("a toolbox's disk: %s", error)
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Takes it away. Never raises."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._session.end()


class Debugging:
    """Debug sessions in guests; those of one guest share its disk."""

    def __init__(self) -> None:
        self._disks: dict[Path, Disk] = {}
        self._locks: dict[Path, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, folder: Path, image: Path, process: Process, keep: bool) -> Session:
        """A program of the toolbox. folder: the VM's run folder. keep: the disk, until the VM
        ends. Raises as Runtime.debug."""
        lock = self._locks.setdefault(folder, asyncio.Lock())
        async with lock:
            disk = await self._disk(folder, image, keep)
            disk.users += 1
        session = Session(FIRST_EXEC, tty=process.tty)
        try:
            records = list(setup.debug_records(process))
            frames = list(message(FIRST_EXEC, ToGuest.EXEC, records))
            await session.open(folder, frames, PATIENCE)
        except BaseException:
            await asyncio.shield(self._release(folder, disk))
            raise
        stack = contextlib.AsyncExitStack()
        stack.push_async_callback(self._release, folder, disk)
        self.then(session, stack)
        return session

    def then(self, session: Session, stack: contextlib.AsyncExitStack) -> None:
        """Unwinds ``stack`` when the session's program has ended."""
        task = asyncio.create_task(self._after(session, stack))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _after(self, session: Session, stack: contextlib.AsyncExitStack) -> None:
        async with stack:
            await session.wait()

    async def _disk(self, folder: Path, image: Path, keep: bool) -> Disk:
        known = self._disks.get(folder)
        if known is not None and known.alive:
            if known.image == image:
                return known
            if known.users:
                raise Failed(
                    "another toolbox is in use there", resolution="end the other debug session"
                )
            await known.close()
        disk = Disk(image, keep)
        await disk.open(folder, lambda: self._over(folder, disk))
        self._disks[folder] = disk
        return disk

    def _over(self, folder: Path, disk: Disk) -> None:
        """Its VM has ended, or it broke the rules."""
        if self._disks.get(folder) is disk and not disk.users:
            task = asyncio.create_task(self._forget(folder, disk))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _release(self, folder: Path, disk: Disk) -> None:
        disk.users -= 1
        if not (disk.users or (disk.keep and disk.alive)):
            await self._forget(folder, disk)

    async def _forget(self, folder: Path, disk: Disk) -> None:
        async with self._locks.setdefault(folder, asyncio.Lock()):
            if disk.users:
                return  # someone came meanwhile
            if self._disks.get(folder) is disk:
                del self._disks[folder]
            await disk.close()
        if folder not in self._disks:
            self._locks.pop(folder, None)

    async def close(self) -> None:
        """Takes all disks away; programs that need them end with errors."""
        for disk in list(self._disks.values()):
            await disk.close()
        self._disks.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
