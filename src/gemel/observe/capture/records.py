"""What the capturing process records, and what it and the engine say to each other.

A unix stream. The first line of a connection is an ``Order``: with a snapshot
it is the engine's own (answered with ``Done``, more may follow, and the process
ends when it closes); with a query it is answered with JSON lines.
"""

from __future__ import annotations

import msgspec

LIMIT = 16 << 20
#: Bytes that are kept of one body, and of all headers of one message.
BODY, HEADERS = 4096, 16384
#: Bytes of a body that a recording may ask for.
BODIES = 1 << 20


class Peer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One end of a call. instance: id; empty for what is not an instance."""

    address: str = ""
    port: int = 0
    instance: str = ""
    name: str = ""
    service: str = ""
    project: str = ""


class Part(msgspec.Struct, omit_defaults=True):
    """A request or a response: headers, the start of the body as text, size of the body."""

    headers: list[tuple[str, str]] = []
    body: str = ""
    size: int = 0
    binary: bool = False
    """The body is no text; ``body`` is base64."""
    cut: bool = False
    """Not all headers or not all of the body are here."""


class Exchange(msgspec.Struct):
    """A request and its answer. Times in seconds; status None: there was no answer (yet)."""

    id: str
    protocol: str
    """http, h2, grpc, postgres, redis, tls, tcp, websocket."""
    start: float
    source: Peer
    target: Peer
    method: str = ""
    path: str = ""
    host: str = ""
    status: int | None = None
    message: str = ""
    """Reason of the status, or the error of a database."""
    failed: bool = False
    first_byte: float | None = None
    duration: float = 0.0
    request: Part = msgspec.field(default_factory=Part)
    response: Part = msgspec.field(default_factory=Part)
    error: str = ""
    """What was wrong with the exchange itself: broken off, bytes missed."""
    connection: int = 0
    fault: str = ""
    """Number of the fault that its answer names; a service could write anything there."""
    carried: str = ""
    """Number of the fault for which a proxy of gemel's carried it on; empty if none did."""

    def weight(self) -> int:
        """Bytes of memory, about."""
        total = 1500 + len(self.path) + len(self.request.body) + len(self.response.body)
        for headers in (self.request.headers, self.response.headers):
            total += 150 * len(headers)
            for name, value in headers:
                total += len(name) + len(value)
        return total


class Call(msgspec.Struct, omit_defaults=True):
    """What of an exchange is needed to join it to a trace. See ``Exchange``."""

    id: str
    protocol: str
    start: float
    duration: float
    source: Peer
    target: Peer
    method: str = ""
    path: str = ""
    host: str = ""
    status: int | None = None
    message: str = ""
    failed: bool = False
    sent: int = 0
    received: int = 0
    connection: int = 0
    trace: str = ""
    parent: str = ""
    request: str = ""
    """X-Request-Id, as the two before: of the request's headers."""
    fault: str = ""
    carried: str = ""

    @property
    def end(self) -> float:
        """When its last byte was seen."""
        return self.start + self.duration


class Increment(msgspec.Struct):
    """Heads the calls that a query with ``calls`` gives.

    epoch: names the process; numbers begin anew with another one.
    """

    epoch: str
    recorded: int


class Snapshot(msgspec.Struct, frozen=True):
    """What to look at. ports and bridges: numbers of interfaces; peers: by address."""

    ports: tuple[int, ...] = ()
    bridges: tuple[int, ...] = ()
    peers: dict[str, Peer] = {}
    virtual: dict[str, tuple[str, ...]] = {}
    """By address of an instance, the virtual addresses that lead to it."""


class Query(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Which exchanges. source, target: name, service or address; status: 404, 5xx, error."""

    follow: bool = False
    tail: int = 0
    """How many of the past at most; 0: all that are kept."""
    full: bool = False
    id: str = ""
    source: str = ""
    target: str = ""
    status: str = ""
    slower: float = 0.0
    protocol: str = ""
    path: str = ""
    project: str = ""
    either: str = ""
    """Calls of it and to it."""
    bodies: int = 0
    """Bytes that are to be kept of each body while this query follows; at most BODIES."""
    metrics: bool = False
    """Instead of exchanges: sums, see ``Sums``."""
    calls: bool = False
    """Instead of exchanges: an ``Increment``, then each ``Call`` numbered above ``after``."""
    after: int = 0
    epoch: str = ""
    """Whose number ``after`` is; with another one's, all calls are given."""


class Order(msgspec.Struct, omit_defaults=True):
    """The first line of a connection; see the module."""

    snapshot: Snapshot | None = None
    query: Query | None = None


class Done(msgspec.Struct):
    """A snapshot holds. error: why it does not."""

    pid: int = 0
    error: str = ""


#: Upper bounds in seconds of the histogram of durations.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Edge(msgspec.Struct):
    """Sums of the calls from one to another."""

    source: str
    target: str
    protocol: str
    code: str
    """200, 404 …; ok or error where a protocol has no number."""
    count: int = 0
    seconds: float = 0.0
    sent: int = 0
    received: int = 0
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * len(BUCKETS))


class Sums(msgspec.Struct):
    """Everything counted since the process began."""

    edges: list[Edge] = []
    overflowed: int = 0
    """Calls that are in no edge because there were too many edges."""
    packets: int = 0
    dropped: int = 0
    """Packets that the kernel dropped for want of room in the ring."""
    gaps: int = 0
    """Stretches of a connection that were missed."""
    flows: int = 0
    evicted: int = 0
    """Connections given up for want of room."""
    failures: int = 0
    """Errors inside a parser; the connection is shown as tcp from then on."""
    recorded: int = 0
