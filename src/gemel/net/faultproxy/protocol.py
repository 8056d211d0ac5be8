"""What the engine tells the proxy, a JSON object a line on its standard input, and its answer."""

from __future__ import annotations

import random

import msgspec

#: Bytes of a line.
LIMIT = 4 << 20


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """A fault. pairs: addresses from, to. port: of the target, 0 for all. Times in seconds.

    latency: by which an answer comes later, evenly more or less by jitter. status: of HTTP, that
    a share of the requests are answered with; body_delay: between the head of an answer and its
    body, for that share.
    """

    number: int
    pairs: tuple[tuple[str, str], ...]
    port: int = 0
    latency: float = 0.0
    jitter: float = 0.0
    status: int = 0
    share: float = 1.0
    body_delay: float = 0.0

    @property
    def http(self) -> bool:
        """Whether it has to understand what it carries."""
        return bool(self.status or self.body_delay)

    def delay(self) -> float:
        """Seconds by which something that passes now is late."""
        return max(0.0, self.latency + random.uniform(-self.jitter, self.jitter))

    def hits(self) -> bool:
        """Whether a request is one of the share."""
        return random.random() < self.share


class Edges(msgspec.Struct, frozen=True):
    """All faults that hold, in the place of those before."""

    edges: tuple[Edge, ...] = ()


class Ready(msgspec.Struct, frozen=True):
    """The ports on which it listens: for bytes, and for HTTP."""

    raw: int
    web: int


class Table:
    """Looks up the fault of a connection."""

    def __init__(self) -> None:
        self._edges: dict[tuple[str, str], list[Edge]] = {}

    def set(self, edges: Edges) -> None:
        """Takes other faults."""
        found: dict[tuple[str, str], list[Edge]] = {}
        for edge in edges.edges:
            for pair in edge.pairs:
                found.setdefault(pair, []).append(edge)
        self._edges = found

    def find(self, source: str, target: str, port: int, *, http: bool) -> Edge | None:
        """The newest fault of this kind between two addresses, or None."""
        for edge in reversed(self._edges.get((source, target), ())):
            if edge.http == http and edge.port in (0, port):
                return edge
        return None
