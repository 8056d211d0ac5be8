"""The logs of all instances in one time line, read once for all who look."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque

import msgspec

from gemel.errors import GemelError
from gemel.observe.logs import parse_time
from gemel.web.hub import Hub
from gemel.web.stage import Stage
from gemel.web.upstream import Upstream, path

log = logging.getLogger("gemel.web")

#: Lines of each instance at the beginning; rows and bytes that are kept for pages that come.
TAIL, KEEP, KEEP_BYTES = 400, 4_000, 8 << 20
#: Bytes of one line that are shown.
LONGEST = 16 << 10
#: Seconds: between two batches; after which reading ends when nobody looks.
BEAT, LINGER = 0.08, 20.0
#: Seconds that may lie between a line and now before lines are skipped rather than shown late.
LAG = 4.0
_HEADER = 8

Row = tuple[int, bytes]
"""Nanoseconds since the epoch, and the row as JSON: [instance, milliseconds, stream, text]."""


def unframe(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Whole frames of Docker's format in ``data``, each with its stream, and what is left."""
    found, at = [], 0
    while len(data) - at >= _HEADER:
        end = at + _HEADER + int.from_bytes(data[at + 4 : at + 8], "big")
        if end > len(data):
            break
        found.append((data[at], data[at + _HEADER : end]))
        at = end
    return found, data[at:]


def row(id: str, stream: int, line: bytes, last: int) -> Row:
    """A line that begins with its time, as a row; one without gets the time of the last one."""
    stamp, _, text = line.partition(b" ")
    when = parse_time(stamp)
    if when < 0:
        when, text = last, line
    if len(text) > LONGEST:
        text = text[:LONGEST] + b" \xe2\x80\xa6"
    shown = (id, when // 1_000_000, stream, text.rstrip(b"\r\n").decode("utf-8", "replace"))
    return when, msgspec.json.encode(shown)


class Follower:
    """Reads one instance's log from where it was left, until it ends."""

    def __init__(self, upstream: Upstream, feed: LogFeed, id: str) -> None:
        self._upstream, self._feed, self._id = upstream, feed, id
        self._last = 0
        self._begun = time.time()

    async def run(self) -> None:
        """Ends with the instance's present run. Never raises."""
        params = {"stdout": "1", "stderr": "1", "follow": "1", "timestamps": "1"}
        if self._last:
            params["since"] = f"{self._last // 10**9}.{self._last % 10**9:09d}"
        else:
            params["tail"] = str(TAIL)
        try:
            await self._read(params)
        except GemelError as error:
            log.debug("the log of %s: %s", self._id[:12], error)
        except Exception:
            log.exception("the log of %s", self._id[:12])

    async def _read(self, params: dict[str, str]) -> None:
        rest, last = b"", self._last
        whole = path("containers", self._id, "logs")
        async with contextlib.aclosing(self._upstream.pieces(whole, params)) as pieces:
            async for kind, piece in pieces:
                if kind.endswith("raw-stream"):
                    *lines, rest = (rest + piece).split(b"\n")
                    frames = [(1, line) for line in lines if line]
                    if len(rest) > LONGEST * 4:
                        frames, rest = [*frames, (1, rest)], b""
                else:
                    frames, rest = unframe(rest + piece)
                self._take(frames, last)
                # a batch that is worked off without a pause must not starve the pages
                await asyncio.sleep(0)

    def _take(self, frames: list[tuple[int, bytes]], before: int) -> None:
        if not frames:
            return
        if self._late(frames[-1][1]):
            self._feed.skipped += len(frames)
            return
        rows = [row(self._id, stream, line, self._last) for stream, line in frames]
        if before:  # ``since`` takes in the line that was the last one
            rows = [one for one in rows if one[0] > before]
        if rows:
            self._last = max(self._last, rows[-1][0])
            self._feed.take(rows)

    def _late(self, line: bytes) -> bool:
        """Whether reading has fallen behind what is written: what was there before is no sign."""
        when = parse_time(line.partition(b" ")[0]) / 1e9
        return self._begun < when < time.time() - LAG


class LogFeed:
    """See the module. ``skipped`` counts lines that were not read in time."""

    def __init__(self, upstream: Upstream, stage: Stage, hub: Hub) -> None:
        self._upstream, self._stage, self._hub = upstream, stage, hub
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._fresh: list[Row] = []
        self._followers: dict[str, Follower] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.skipped = 0

    def take(self, rows: list[Row]) -> None:
        """Rows of one instance; they go out with the next beat."""
        self._fresh += rows

    def recent(self) -> list[bytes]:
        """For a page that begins to look."""
        return list(self._kept)

    async def run(self) -> None:
        """Reads while somebody looks; never ends."""
        try:
            while True:
                await self._hub.until_wanted("logs")
                if not self._stage.instances:
                    await self._stage.look()
                beating = asyncio.create_task(self._beat(), name="log beat")
                try:
                    while self._hub.lingers("logs", seconds=LINGER):
                        self._sync()
                        await asyncio.sleep(0.5)
                finally:
                    beating.cancel()
                    await self._end()
        finally:
            await self._end()

    def _sync(self) -> None:
        """A follower for each instance; one that has ended begins again with the instance."""
        running = {one["id"]: one["state"] for one in self._stage.instances}
        for id, state in running.items():
            task = self._tasks.get(id)
            if task is not None and not task.done():
                continue
            if task is not None and state not in ("running", "paused", "restarting"):
                continue
            follower = self._followers.setdefault(id, Follower(self._upstream, self, id))
            self._tasks[id] = asyncio.create_task(follower.run(), name=f"log {id[:12]}")
        for id in self._tasks.keys() - running.keys():
            self._tasks.pop(id).cancel()
            self._followers.pop(id, None)

    async def _end(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._followers.clear()
        self._kept.clear()
        self._fresh, self._kept_bytes = [], 0

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._flush()

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        skipped, self.skipped = self.skipped, 0
        self._hub.drop("logs", skipped)
        if not fresh:
            return
        fresh.sort(key=lambda one: one[0])
        rows = [encoded for _, encoded in fresh]
        for one in rows:
            self._kept.append(one)
            self._kept_bytes += len(one)
        while len(self._kept) > KEEP or self._kept_bytes > KEEP_BYTES:
            self._kept_bytes -= len(self._kept.popleft())
        self._hub.add("logs", rows)
