"""Containers and execs in memory; see ``memory``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import NamedTuple

from gemel.engine.facade import Attached, CommitRequest, Filters, Json, Jsons, LogQuery
from gemel.errors import (
    CommandNotFound,
    Conflict,
    Failed,
    InvalidInput,
    NotFound,
    NotModified,
    Unsupported,
)
from gemel.model.docker import (
    CreateRequest,
    DebugCreate,
    ExecCreate,
)


class MemoryStream:
    """Echoes what it is given; at the end of its input it says how much there was.

    ``flood`` makes it write without an end instead, and counts what was taken.
    """

    def __init__(self, tty: bool = False, flood: bool = False, silent: bool = False) -> None:
        self.tty = tty
        self.flood = flood
        self.silent = silent
        self.taken = 0
        self.input = bytearray()
        self.stdin_closed = asyncio.Event()
        self.closed = asyncio.Event()
        self.pid = 1
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    async def read(self) -> tuple[int, bytes] | None:
        if self.flood:
            self.taken += 1 << 16
            return 1, b"x" * (1 << 16)
        return await self._queue.get()

    async def write(self, data: bytes) -> None:
        if self.stdin_closed.is_set():
            raise Failed("standard input is closed")
        self.input += data
        if not self.silent:
            await self._queue.put((1, data))

    async def close_stdin(self) -> None:
        self.stdin_closed.set()
        if not self.silent:
            await self._queue.put((1 if self.tty else 2, b"%d bytes" % len(self.input)))
            await self._queue.put(None)

    async def resize(self, rows: int, columns: int) -> None:
        pass

    async def close(self) -> None:
        self.closed.set()

    async def wait(self) -> int:
        return 0

    async def kill(self, signal: int) -> None:
        pass


class Stat(NamedTuple):
    name: str = "passwd"
    size: int = 3
    mode: int = 0o100644
    mtime: float = 1.5
    link_target: str = ""


@dataclass
class Box:
    id: str
    name: str
    request: CreateRequest
    running: bool = False
    streams: list[MemoryStream] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    files: bytes = b""
    log: list[tuple[int, bytes]] = field(default_factory=list)
    samples: int = 0


class MemoryContainers:
    def __init__(self) -> None:
        self.all: dict[str, Box] = {}
        self.flood = self.silent = False
        self.followers = self.lists = 0
        self.last_list: tuple[bool, int, bool, Filters] | None = None
        self.last_log: LogQuery | None = None

    def find(self, ref: str) -> Box:
        for box in self.all.values():
            if ref in (box.name, box.id) or (ref and box.id.startswith(ref)):
                return box
        raise NotFound(f"No such container: {ref}")

    async def create(self, request: CreateRequest, name: str | None, platform: str = "") -> Json:
        if not request.image:
            raise InvalidInput("no image given", resolution="give one")
        if any(box.name == name for box in self.all.values()):
            raise Conflict(f'The container name "/{name}" is already in use')
        id = f"{len(self.all) + 1:064x}"
        self.all[id] = Box(id, name or f"box{len(self.all)}", request)
        return {"Id": id, "Warnings": []}

    @property
    def generation(self) -> int:
        self.lists += 1  # never the same: nothing is kept
        return self.lists

    async def list(self, all: bool, limit: int, size: bool, filters: Filters) -> Jsons:
        self.last_list = all, limit, size, filters
        return [{"Id": box.id, "Names": ["/" + box.name]} for box in self.all.values()]

    async def inspect(self, ref: str, size: bool = False) -> Json:
        box = self.find(ref)
        return {"Id": box.id, "Name": "/" + box.name, "State": {"Running": box.running}}

    async def start(self, ref: str) -> None:
        box = self.find(ref)
        if box.request.cmd == ["missing"]:
            raise CommandNotFound("cannot start box", details='exec: "missing"')
        if box.running:
            raise NotModified("it runs already")
        box.running = True

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        box = self.find(ref)
        box.running = False
        box.ended.set()

    async def start_held(self, ref: str) -> None:
        await self.start(ref)

    async def admit(self, ref: str, replaces: str, seconds: float) -> None:
        self.find(ref)

    async def drain(self, ref: str, seconds: float) -> None:
        self.find(ref)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        self.find(ref)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        await self.stop(ref)

    async def pause(self, ref: str) -> None:
        raise Unsupported("a micro VM cannot be paused", resolution="stop it")

    async def unpause(self, ref: str) -> None:
        raise Conflict("not paused")

    async def rename(self, ref: str, name: str) -> None:
        self.find(ref).name = name

    async def remove(self, ref: str, force: bool = False, volumes: bool = False) -> None:
        box = self.find(ref)
        if box.running and not force:
            raise Conflict("it runs")
        del self.all[box.id]

    async def waiter(self, ref: str, condition: str = "not-running") -> Awaitable[Json]:
        box = self.find(ref)

        async def ended() -> Json:
            await box.ended.wait()
            return {"StatusCode": 3, "Error": None}

        return ended()

    async def logs(
        self, ref: str, query: LogQuery
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        box = self.find(ref)
        self.last_log = query

        async def pieces() -> AsyncIterator[tuple[int, bytes]]:
            self.followers += 1
            try:
                for piece in box.log:
                    yield piece
                while query.follow and not box.ended.is_set():
                    await asyncio.sleep(0.01)
                    if self.flood:
                        yield 1, b"y" * (1 << 16)
            finally:
                self.followers -= 1

        return box.request.tty, pieces()

    async def attach(self, ref: str, *, history: bool, stdin: bool) -> Attached:
        box = self.find(ref)
        stream = MemoryStream(box.request.tty, self.flood, self.silent)
        box.streams.append(stream)
        before = (await self.logs(ref, LogQuery()))[1] if history else None
        return Attached(box.request.tty, stream, before)

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        self.find(ref)

    async def top(self, ref: str, ps_args: str) -> Json:
        self.find(ref)
        return {"Titles": ["PID"], "Processes": [["1"]]}

    async def stats(self, ref: str) -> Json:
        box = self.find(ref)
        box.samples += 1
        return {"read": f"t{box.samples}", "cpu_stats": {"n": box.samples}}

    async def update(self, ref: str, body: Json) -> Json:
        self.find(ref)
        return {"Warnings": []}

    async def prune(self, filters: Filters) -> Json:
        return {"ContainersDeleted": [], "SpaceReclaimed": 0}

    async def read_archive(self, ref: str, path: str) -> tuple[Stat, AsyncIterator[bytes]]:
        box = self.find(ref)

        async def pieces() -> AsyncIterator[bytes]:
            yield box.files

        return Stat(), pieces()

    async def write_archive(
        self,
        ref: str,
        path: str,
        tar: AsyncIterator[bytes],
        *,
        keep: bool = True,
        as_user: bool = False,
    ) -> None:
        box = self.find(ref)
        box.files = b"".join([piece async for piece in tar])

    async def stat_path(self, ref: str, path: str) -> Stat:
        self.find(ref)
        return Stat()

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        box = self.find(ref)

        async def pieces() -> AsyncIterator[bytes]:
            yield box.files

        return pieces()

    async def changes(self, ref: str) -> Jsons | None:
        self.find(ref)
        return [{"Path": "/a", "Kind": 1}]

    async def commit(self, ref: str, wanted: CommitRequest) -> Json:
        self.find(ref)
        return {"Id": f"sha256:{wanted.ref}"}


class MemoryExecs:
    def __init__(self, containers: MemoryContainers) -> None:
        self._containers = containers
        self.all: dict[str, ExecCreate] = {}
        self.streams: dict[str, MemoryStream] = {}

    async def create(self, ref: str, request: ExecCreate) -> str:
        self._containers.find(ref)
        id = f"e{len(self.all)}"
        self.all[id] = request
        return id

    async def create_debug(self, ref: str, request: DebugCreate) -> str:
        return await self.create(ref, request)

    def _find(self, id: str) -> ExecCreate:
        if id not in self.all:
            raise NotFound(f"No such exec instance: {id}")
        return self.all[id]

    async def start(
        self, id: str, tty: bool | None = None, size: tuple[int, int] | None = None
    ) -> tuple[bool, MemoryStream]:
        request = self._find(id)
        if request.cmd == ["missing"]:
            raise CommandNotFound("exec failed", details='exec: "missing"')
        self.streams[id] = MemoryStream(request.tty)
        return request.tty, self.streams[id]

    async def start_detached(self, id: str) -> None:
        self._find(id)

    async def resize(self, id: str, rows: int, columns: int) -> None:
        self._find(id)

    async def inspect(self, id: str) -> Json:
        request = self._find(id)
        return {
            "ID": id,
            "OpenStdin": request.attach_stdin,
            "OpenStdout": request.attach_stdout,
            "OpenStderr": request.attach_stderr,
            "DetachKeys": request.detach_keys,
        }
