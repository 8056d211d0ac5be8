"""Logs and attach. Output is read from the log, so that no reader can hold a service up
and nothing is lost between attaching and the first byte; input goes to the runtime."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

from gemel.engine.core import Core, Live
from gemel.engine.facade import Attached, LogQuery
from gemel.engine.records import Container, stamp
from gemel.errors import Failed, GemelError
from gemel.observe import logs
from gemel.runtime.base import Stream

PIECE = 64 << 10
"""Largest piece in bytes that is handed on at once (a whole line may be longer)."""


def log_pieces(
    core: Core, one: Container, query: LogQuery, ended: asyncio.Event | None = None
) -> AsyncGenerator[tuple[int, bytes], None]:
    """The wanted part of a log in pieces with their stream.

    The place is taken now (read_batches does so when called): what is written
    before the first read belongs to the reader.
    """
    batches = logs.read_batches(
        core.paths.instance(one.id) / "log",
        stdout=query.stdout,
        stderr=query.stderr,
        since_ns=query.since,
        until_ns=query.until,
        tail=query.tail,
        follow=query.follow,
        ended=ended or core.live[one.id].ended,
    )
    return _pieces(batches, query.timestamps)


async def _pieces(
    batches: AsyncGenerator[list[logs.LogLine], None], timestamps: bool
) -> AsyncGenerator[tuple[int, bytes], None]:
    middle: dict[int, bool] = {}
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for piece in _joined(batch, timestamps, middle):
                yield piece


def _joined(
    batch: list[logs.LogLine], timestamps: bool, middle: dict[int, bool]
) -> list[tuple[int, bytes]]:
    """Lines of one stream that follow each other, in one piece."""
    result: list[tuple[int, bytes]] = []
    parts: list[bytes] = []
    stream, size = 0, 0
    for line in batch:
        if parts and (line.stream != stream or size >= PIECE):
            result.append((stream, b"".join(parts)))
            parts, size = [], 0
        stream = line.stream
        if timestamps and not middle.get(stream):
            parts.append(stamp(line.time_ns).encode() + b" ")
        middle[stream] = not line.data.endswith(b"\n")
        parts.append(line.data)
        size += len(line.data)
    if parts:
        result.append((stream, b"".join(parts)))
    return result


class AttachedStream:
    """Output out of the log from now on, input to the first process (runtime.base.Stream)."""

    def __init__(self, core: Core, one: Container, live: Live, stdin: bool) -> None:
        self._core = core
        self._one = one
        self._live = live
        self._stdin = stdin
        self._over = live.upcoming()
        self._input: Stream | None = None
        self._drain: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        query = LogQuery(follow=True, tail=0)
        self._pieces = log_pieces(core, one, query, self._over)

    async def read(self) -> tuple[int, bytes] | None:
        """See runtime.base.Stream."""
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            return None

    async def _opened(self) -> Stream | None:
        """The runtime's stream, once the process runs; None if it will not."""
        async with self._lock:
            if self._input is not None or not self._stdin:
                return self._input
            await _either(self._live.begun, self._over)
            if not self._live.begun.is_set():
                return None
            self._input = await self._core.runtime(self._one).attach(self._one.id)
            self._drain = asyncio.create_task(_discard(self._input))
            return self._input

    async def write(self, data: bytes) -> None:
        """See runtime.base.Stream."""
        stream = await self._opened()
        if stream is None or not await self._unless_over(stream.write(data)):
            raise Failed("standard input is closed")

    async def close_stdin(self) -> None:
        """Ends standard input, where it belongs to this connection alone (StdinOnce)."""
        if not self._one.request.stdin_once:
            return
        stream = await self._opened()
        if stream is not None:
            await self._unless_over(stream.close_stdin())

    async def _unless_over(self, work: Coroutine[Any, Any, None]) -> bool:
        """Does it, but gives it up when the run ends: a runtime's stream that was asked for
        at that very moment waits for the next run. Whether it was done."""
        task = asyncio.create_task(work)
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            await task
            return True
        finally:
            for one in (task, over):
                one.cancel()
            await asyncio.gather(task, over, return_exceptions=True)

    async def resize(self, rows: int, columns: int) -> None:
        """See runtime.base.Stream."""
        if self._live.begun.is_set():
            await self._core.runtime(self._one).resize(self._one.id, rows, columns)

    async def close(self) -> None:
        """See runtime.base.Stream."""
        if self._drain is not None:
            self._drain.cancel()
            await asyncio.gather(self._drain, return_exceptions=True)
            self._drain = None
        if self._input is not None:
            if self._one.request.stdin_once:
                with contextlib.suppress(GemelError, OSError):
                    await self._unless_over(self._input.close_stdin())
            await self._input.close()
            self._input = None
        await self._pieces.aclose()


async def _discard(stream: Stream) -> None:
    """Reads and drops what the runtime sends: the log has it too."""
    with contextlib.suppress(Failed):
        while await stream.read() is not None:
            pass


async def _either(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def attach(core: Core, one: Container, *, history: bool, stdin: bool) -> Attached:
    """Connects to a container, also to one that has not started yet."""
    live = core.live[one.id]
    stream = AttachedStream(core, one, live, stdin and one.request.open_stdin)
    past: AsyncIterator[tuple[int, bytes]] | None = None
    if history:
        past = log_pieces(core, one, LogQuery(until=time.time_ns()))  # the rest is live
    return Attached(one.request.tty, stream, past)
