"""The exchanges of late, bounded by number and memory; sums; and those who look on."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from itertools import islice

import msgspec

from gemel.observe.capture.records import (
    BUCKETS,
    Call,
    Edge,
    Exchange,
    Part,
    Peer,
    Query,
    Sums,
)
from gemel.observe.tracing import context

#: Exchanges that are kept, and their bytes; edges that are counted; what may wait for a looker.
KEEP, KEEP_BYTES, EDGES, QUEUE = 20_000, 64 << 20, 5_000, 4096


def label(peer: Peer) -> str:
    """How an end is called in sums and lists."""
    return peer.service or peer.name or peer.address


def _is(peer: Peer, wanted: str) -> bool:
    return wanted in (peer.service, peer.name, peer.address, peer.instance) or (
        len(wanted) >= 12 and peer.instance.startswith(wanted)
    )


def _has_status(exchange: Exchange, wanted: str) -> bool:
    if wanted == "error":
        return exchange.failed
    text = str(exchange.status) if exchange.status is not None else "none"
    return text == wanted or (
        len(wanted) == 3 and wanted[1:].lower() == "xx" and text.startswith(wanted[0])
    )


def matches(exchange: Exchange, query: Query) -> bool:
    """Whether an exchange is among those that a query asks for."""
    source, target = exchange.source, exchange.target
    return (
        (not query.id or exchange.id == query.id)
        and (not query.source or _is(source, query.source))
        and (not query.target or _is(target, query.target))
        and (not query.either or _is(source, query.either) or _is(target, query.either))
        and (not query.project or query.project in (source.project, target.project))
        and (not query.status or _has_status(exchange, query.status))
        and exchange.duration >= query.slower
        and (not query.protocol or exchange.protocol == query.protocol)
        and (not query.path or query.path in exchange.path)
    )


class Looker:
    """Somebody who follows. What it does not take in time is dropped and counted."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.queue: asyncio.Queue[Exchange] = asyncio.Queue(QUEUE)
        self.dropped = 0

    def offer(self, exchange: Exchange) -> None:
        """Never waits."""
        if matches(exchange, self.query):
            try:
                self.queue.put_nowait(exchange)
            except asyncio.QueueFull:
                self.dropped += 1


class Store:
    """See the module."""

    def __init__(self) -> None:
        self.recorded = 0
        self._kept: deque[tuple[Exchange, int]] = deque()
        self._bytes = 0
        self._edges: dict[tuple[str, str, str, str], Edge] = {}
        self._overflowed = 0
        self.lookers: set[Looker] = set()

    def add(self, exchange: Exchange) -> None:
        """An exchange that is over."""
        self.recorded += 1
        exchange.id = str(self.recorded)
        weight = exchange.weight()
        self._kept.append((exchange, weight))
        self._bytes += weight
        while len(self._kept) > KEEP or self._bytes > KEEP_BYTES:
            self._bytes -= self._kept.popleft()[1]
        self._count(exchange)
        for looker in self.lookers:
            looker.offer(exchange)

    def _count(self, exchange: Exchange) -> None:
        if exchange.status is not None:
            code = str(exchange.status)
        else:
            code = "error" if exchange.failed else "ok"
        key = (label(exchange.source), label(exchange.target), exchange.protocol, code)
        edge = self._edges.get(key)
        if edge is None:
            if len(self._edges) >= EDGES:
                self._overflowed += 1
                return
            edge = self._edges[key] = Edge(*key)
        edge.count += 1
        edge.seconds += exchange.duration
        edge.sent += exchange.request.size
        edge.received += exchange.response.size
        place = bisect_left(BUCKETS, exchange.duration)
        if place < len(BUCKETS):
            edge.buckets[place] += 1

    def find(self, query: Query) -> list[Exchange]:
        """What is kept and asked for, oldest first."""
        found: list[Exchange] = []
        for exchange, _ in reversed(self._kept):
            if matches(exchange, query):
                found.append(exchange)
                if query.tail and len(found) >= query.tail:
                    break
        return found[::-1]

    def since(self, after: int) -> list[Exchange]:
        """What is kept and numbered above ``after``, oldest first."""
        count = min(max(0, self.recorded - after), len(self._kept))
        return [exchange for exchange, _ in islice(reversed(self._kept), count)][::-1]

    def sums(self) -> Sums:
        """Everything counted."""
        return Sums(list(self._edges.values()), self._overflowed, recorded=self.recorded)


def shown(exchange: Exchange, full: bool) -> bytes:
    """A line for the reader; without headers and bodies unless it wants all."""
    if not full:
        exchange = msgspec.structs.replace(
            exchange,
            request=Part(size=exchange.request.size),
            response=Part(size=exchange.response.size),
        )
    return msgspec.json.encode(exchange) + b"\n"


def call(exchange: Exchange) -> Call:
    """What of an exchange traces need."""
    found = context.of(exchange.request.headers)
    return Call(
        id=exchange.id,
        protocol=exchange.protocol,
        start=exchange.start,
        duration=exchange.duration,
        source=exchange.source,
        target=exchange.target,
        method=exchange.method,
        path=exchange.path[:512],
        host=exchange.host,
        status=exchange.status,
        message=(exchange.error or exchange.message)[:512],
        failed=exchange.failed,
        sent=exchange.request.size,
        received=exchange.response.size,
        connection=exchange.connection,
        trace=found.trace,
        parent=found.parent,
        request=found.request,
        fault=exchange.fault,
        carried=exchange.carried,
    )
