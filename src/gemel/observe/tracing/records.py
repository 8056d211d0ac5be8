"""Calls, spans and traces, and what the process and the engine say to each other.

A unix stream; the first line of a connection is an ``Order``. With ``peers`` it is
the engine's own, which says who has which address (more such lines may follow, and
the process ends when it closes). With ``ask`` a descriptor may come with it: a
connection to the capturing process, from which new calls are read. JSON lines answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gemel.observe.capture.records import Call, Peer

Attributes = dict[str, Any]


class Span(msgspec.Struct):
    """One of OpenTelemetry's spans. Times in seconds since the epoch."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    """internal, server, client, producer, consumer."""
    start: float
    end: float
    service: str
    source: Peer
    """Who sent it, by its address."""
    status: str = "unset"
    """unset, ok, error."""
    message: str = ""
    attributes: Attributes = {}
    events: list[Attributes] = []
    resource: Attributes = {}
    scope: str = ""

    def weight(self) -> int:
        """Bytes of memory, about."""
        return 900 + len(self.name) + 120 * len(self.attributes) + 250 * len(self.events)


class Log(msgspec.Struct):
    """One of OpenTelemetry's log records; trace and span empty where it names none."""

    at: float
    service: str
    severity: str
    body: str
    trace: str = ""
    span: str = ""
    attributes: Attributes = {}

    def weight(self) -> int:
        """Bytes of memory, about."""
        return 500 + len(self.body) + 120 * len(self.attributes)


class Point(msgspec.Struct):
    """The latest value of one of OpenTelemetry's metrics.

    kind: counter, gauge, histogram; buckets: upper bounds with counts, not summed up.
    """

    name: str
    unit: str
    kind: str
    help: str
    labels: dict[str, str]
    service: str
    value: float = 0.0
    count: int = 0
    bounds: list[float] = []
    buckets: list[int] = []


class Shown(msgspec.Struct, rename="pascal"):
    """A span of a trace as it is shown, be it a call that was observed or OpenTelemetry's."""

    id: str
    parent_id: str
    service: str
    peer: str
    name: str
    kind: str
    start: float
    duration: float
    status: str
    error: bool
    inferred: bool
    """The parent was not named by the call but found by its time and connection."""
    source: str
    """observed, otlp."""
    call_id: str = ""
    """Number of the exchange, of what was observed."""
    attributes: Attributes = {}
    events: list[Attributes] = []


class Trace(msgspec.Struct, rename="pascal"):
    """A trace in a line."""

    id: str
    root: str
    root_service: str
    services: list[str]
    start: float
    duration: float
    errors: int
    inferred: bool
    span_count: int
    status: str = ""
    """Of the root."""


class Whole(Trace, rename="pascal"):
    """A trace with all its spans, in the order of a walk through the tree."""

    spans: list[Shown] = []
    logs: list[Attributes] = []
    truncated: bool = False


class Ask(msgspec.Struct, omit_defaults=True):
    """Which traces. id: one, whole (a beginning of it will do; ``newest``)."""

    id: str = ""
    tail: int = 0
    service: str = ""
    slower: float = 0.0
    errors: bool = False
    project: str = ""
    otlp: bool = False
    """As OTLP/JSON, a request a line."""
    after: float = 0.0
    """Only those that ended after that, in seconds since the epoch."""
    points: bool = False
    """The latest metrics instead."""
    counts: bool = False
    """What was received and kept instead."""


class Order(msgspec.Struct, omit_defaults=True):
    """The first line of a connection; see the module."""

    peers: dict[str, Peer] | None = None
    ask: Ask | None = None


class Counts(msgspec.Struct):
    """What the process has received since it began."""

    spans: int = 0
    logs: int = 0
    points: int = 0
    refused: int = 0
    """Requests that were no OTLP, too big, or too many."""
    forgotten: int = 0
    """Spans and logs that had to go for want of room."""
    kept_spans: int = 0
    kept_calls: int = 0


__all__ = [
    "Ask",
    "Attributes",
    "Call",
    "Counts",
    "Log",
    "Order",
    "Peer",
    "Point",
    "Shown",
    "Span",
    "Trace",
    "Whole",
]
