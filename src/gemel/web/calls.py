"""Calls between services: handed on as they come, and summed up by edge for the map."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import msgspec

from gemel.errors import GemelError
from gemel.observe.capture.records import Exchange, Peer
from gemel.web.hub import Hub
from gemel.web.upstream import Upstream

#: Seconds over which the map sums up; calls of an edge whose times are kept; edges at most.
WINDOW, SAMPLES, EDGES = 30, 1_000, 400
#: Calls that are kept for pages that come; seconds between two maps, and until reading ends.
KEEP, BEAT, LINGER = 1_000, 1.0, 30.0


def end(peer: Peer) -> dict[str, str]:
    """One end of a call as a node: an instance's service, or else what is known."""
    name = peer.service or peer.name or peer.address
    return {"id": f"{peer.project}/{name}", "name": name, "project": peer.project}


class Edge:
    """Calls from one service to another by one protocol, of late."""

    def __init__(self, source: dict[str, str], target: dict[str, str], protocol: str) -> None:
        self.source, self.target, self.protocol = source, target, protocol
        self.total = self.failed = 0
        self.last = 0.0
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=WINDOW + 1)
        self._times: deque[tuple[int, float]] = deque(maxlen=SAMPLES)

    def add(self, now: float, duration: float, failed: bool) -> None:
        """A call that has ended at ``now`` (seconds)."""
        second = int(now)
        calls, errors = 0, 0
        if self._seconds and self._seconds[-1][0] == second:
            _, calls, errors = self._seconds.pop()
        self._seconds.append((second, calls + 1, errors + failed))
        self._times.append((second, duration))
        self.total += 1
        self.failed += failed
        self.last = now

    def shown(self, now: float) -> dict[str, Any]:
        """Rate a second, share of failures, median and 95th percentile of late."""
        since = int(now) - WINDOW
        calls = sum(n for second, n, _ in self._seconds if second > since)
        errors = sum(n for second, _, n in self._seconds if second > since)
        times = sorted(took for second, took in self._times if second > since)
        return {
            "from": self.source["id"],
            "to": self.target["id"],
            "protocol": self.protocol,
            "rate": round(calls / WINDOW, 2),
            "errors": round(errors / calls, 4) if calls else 0,
            "p50": times[len(times) // 2] if times else 0,
            "p95": times[min(len(times) - 1, int(len(times) * 0.95))] if times else 0,
            "total": self.total,
            "failed": self.failed,
            "quiet": now - self.last,
        }


def is_failure(call: Exchange) -> bool:
    """Whether a call went wrong."""
    return call.failed or bool(call.error) or (call.status or 0) >= 500


class Marked(Exchange):
    """A call with the faults that it met, as the engine tells them."""

    faults: list[dict[str, Any]] = []


def row(call: Marked) -> bytes:
    """A call as a row of the list."""
    return msgspec.json.encode(
        [
            call.id, call.start, end(call.source), end(call.target), call.protocol, call.method,
            call.path[:500], call.status, call.duration, call.request.size, call.response.size,
            is_failure(call), (call.error or call.message)[:200],
            ", ".join(f"{met['Fault']}{'' if met['Sure'] else ' ~'}" for met in call.faults),
        ]
    )  # fmt: skip


class Calls:
    """See the module."""

    def __init__(self, upstream: Upstream, hub: Hub) -> None:
        self._upstream, self._hub = upstream, hub
        self._kept: deque[bytes] = deque(maxlen=KEEP)
        self._edges: dict[tuple[str, str, str], Edge] = {}
        self._faults: list[dict[str, Any]] = []
        self._begun = 0.0
        self._last_id = self._dropped = 0
        self.problem: dict[str, str] | None = None

    def recent(self) -> list[bytes]:
        """For a page that begins to look."""
        return list(self._kept)

    async def run(self) -> None:
        """Reads while somebody looks; never ends."""
        while True:
            await self._hub.until_wanted("map", "calls")
            reading = asyncio.create_task(self._read(), name="calls")
            try:
                while self._hub.lingers("map", "calls", seconds=LINGER):
                    if self._hub.wanted("map"):
                        await self.publish()
                    await asyncio.sleep(BEAT)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def publish(self) -> None:
        """The map as it is now, to those who look at it."""
        try:
            self._faults = await self._upstream.call("GET", "/gemel/faults") or []
        except GemelError:
            self._faults = []
        self._hub.put("map", self.message())

    def message(self) -> bytes:
        """The map, for a page."""
        now = time.time()
        nodes = {}
        for edge in self._edges.values():
            nodes[edge.source["id"]], nodes[edge.target["id"]] = edge.source, edge.target
        return msgspec.json.encode(
            {
                "t": "map",
                "window": min(WINDOW, max(1, int(now - self._begun))),
                "nodes": list(nodes.values()),
                "edges": [edge.shown(now) for edge in self._edges.values()],
                "faults": self._faults,
                "problem": self.problem,
            }
        )

    async def _read(self) -> None:
        """Follows the recording, again after a while when it breaks off."""
        while True:
            tail = "500" if not self._last_id else "2000"
            try:
                self._begun = self._begun or time.time()
                self._dropped = 0
                params = {"follow": "1", "tail": tail}
                async with contextlib.aclosing(
                    self._upstream.lines("/gemel/traffic", params)
                ) as lines:
                    async for line in lines:
                        self.problem = None
                        self._take(line)
            except GemelError as error:
                self.problem = {"brief": error.brief, "resolution": error.resolution}
            self._last_id = 0  # a recording that begins anew counts anew
            await asyncio.sleep(2.0)

    def _take(self, line: bytes) -> None:
        if not line.startswith(b'{"id"'):
            self._told(line)
            return
        try:
            call = msgspec.json.decode(line, type=Marked)
        except msgspec.MsgspecError:
            return
        number = int(call.id) if call.id.isdigit() else 0
        if number and number <= self._last_id:
            return
        self._last_id = number
        encoded = row(call)
        self._kept.append(encoded)
        self._hub.add("calls", [encoded])
        self._count(call)

    def _told(self, line: bytes) -> None:
        """A line that is no call: how many were left out so far, or that a recording begins."""
        try:
            told = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError:
            return
        if "recording" in told:
            self._last_id = 0
        if isinstance(total := told.get("dropped"), int):
            self._hub.drop("calls", max(0, total - self._dropped))
            self._dropped = total

    def _count(self, call: Exchange) -> None:
        source, target = end(call.source), end(call.target)
        key = (source["id"], target["id"], call.protocol)
        edge = self._edges.get(key)
        if edge is None:
            if len(self._edges) >= EDGES:
                oldest = min(self._edges, key=lambda one: self._edges[one].last)
                del self._edges[oldest]
            edge = self._edges[key] = Edge(source, target, call.protocol)
        edge.add(call.start + call.duration, call.duration, is_failure(call))
