"""From packets to dialogues: finds each packet's connection, puts it in order, names its protocol.

Everything is bounded: connections, bytes that wait, commands without an answer.
An error inside a parser ends that parser, never this.
"""

from __future__ import annotations

import logging
import re
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

from gemel.host.carried import Carried
from gemel.observe.capture.database import Postgres, Redis
from gemel.observe.capture.dialogue import Dialogue, Link, Lost
from gemel.observe.capture.directory import Directory
from gemel.observe.capture.http1 import Http1, Upgraded
from gemel.observe.capture.http2 import PREFACE, Http2
from gemel.observe.capture.records import Exchange
from gemel.observe.capture.tcp import Gap, Piece, Stream

log = logging.getLogger("gemel.capture")

#: Connections at once; seconds after which an idle one is forgotten.
FLOWS, IDLE = 16384, 900.0
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16

_METHOD = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE|CONNECT|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE"
    rb"|LOCK|UNLOCK|REPORT|SEARCH|PURGE|LINK|UNLINK|QUERY) [^\s]"
)
_RESP = re.compile(rb"\*[1-9]\d{0,6}\r\n\$\d{1,9}\r\n")
#: Bytes within which a protocol must be known.
_ENOUGH = 32


def sniff(data: bytes, port: int) -> str:
    """The protocol by the first bytes of who connected; "" if more are needed."""
    if data[:2] == b"\x16\x03":
        return "tls"
    if _METHOD.match(data):
        return "http"
    if data.startswith(PREFACE[:16]):
        return "h2"
    if _RESP.match(data) or (port == 6379 and data[:4].isalpha()):
        return "redis"
    if len(data) >= 8 and _is_postgres(data):
        return "postgres"
    return "tcp" if len(data) >= _ENOUGH or not _may_become(data) else ""


def _is_postgres(data: bytes) -> bool:
    size, code = struct.unpack_from("!II", data)
    return (8 < size <= 10000 and code >> 16 == 3) or (size == 8 and code in (80877103, 80877104))


def _may_become(data: bytes) -> bool:
    """Whether few bytes may be the begin of something known."""
    return data[:1] in (b"\x16", b"*", b"\0") or data.rstrip(b" *").isalpha() or len(data) < 2


class Raw:
    """A connection whose content is not read: TLS, WebSocket, anything else. One exchange."""

    def __init__(self, link: Link, protocol: str, at: float, note: str = "") -> None:
        self.link = link
        self.exchange = link.exchange(protocol, at)
        self.exchange.message = note
        self._hello = bytearray() if protocol == "tls" else None

    def data(self, client: bool, data: bytes, at: float) -> None:
        """See Dialogue."""
        self._count(client, len(data))
        if not client and self.exchange.first_byte is None:
            self.exchange.first_byte = max(0.0, at - self.exchange.start)
        if client and self._hello is not None:
            self._hello += data[:2048]
            name = server_name(bytes(self._hello))
            if name or len(self._hello) > 4096:
                self.exchange.host, self._hello = name, None

    def _count(self, client: bool, size: int) -> None:
        part = self.exchange.request if client else self.exchange.response
        part.size += size

    def gap(self, client: bool, size: int, at: float) -> None:
        """See Dialogue."""
        self._count(client, size)

    def ended(self, client: bool, at: float) -> None:
        """See Dialogue."""

    def closed(self, at: float, reset: bool) -> None:
        """See Dialogue."""
        if self.exchange.request.size or self.exchange.response.size:
            self.link.record(self.exchange, at)


def server_name(hello: bytes) -> str:
    """The name that a TLS client asks for (SNI); "" without one, or not yet."""
    at = hello.find(b"\0\0", 43)
    while 0 <= at < len(hello) - 9:
        # extension 0: length, length of the list, kind 0, length of the name
        outer, inner, kind, size = struct.unpack_from("!HHBH", hello, at + 2)
        if kind == 0 and outer == inner + 2 and inner == size + 3 and 0 < size < 256:
            name = hello[at + 9 : at + 9 + size]
            if len(name) == size and re.fullmatch(rb"[\w.-]+", name):
                return name.decode("ascii")
        at = hello.find(b"\0\0", at + 1)
    return ""


class Flow:
    """One connection."""

    def __init__(self, link: Link, at: float) -> None:
        self.link = link
        self.streams = (Stream(), Stream())
        """Of who connected, and of who was connected to."""
        self.seen = at
        self.started = at
        self._dialogue: Dialogue | None = None
        self._first = bytearray()
        self.lost = False
        """Somewhere in the midst: only the begin of a request tells where."""
        self.missed = 0
        self.failures = 0
        self.other = b""
        """The key of what the instance behind a virtual address sends."""
        self.silent = False
        """What it says is told of by another one, of which it is the other half."""
        self.near = b""
        """The key of the silent one that this tells of."""

    def pieces(self, client: bool, pieces: list[Piece], at: float) -> None:
        """What came in order from one side."""
        for piece in pieces:
            try:
                if isinstance(piece, Gap):
                    self.missed += 1
                    self.lost = True
                    if self._dialogue is not None:
                        self._dialogue.gap(client, piece, at)
                else:
                    self._data(client, piece, at)
            except Upgraded as change:
                self._change(change.protocol, at)
                if change.rest:
                    self.pieces(False, [change.rest], at)
            except Lost as lost:
                self._lost(str(lost), at)
            except Exception:  # hostile bytes must not stop the others
                log.exception("a parser failed")
                self.failures += 1
                self._change("tcp", at)

    def _change(self, protocol: str, at: float) -> None:
        self._dialogue = Http2(self.link) if protocol == "h2" else Raw(self.link, protocol, at)

    def _lost(self, why: str, at: float) -> None:
        """The parser cannot go on: what it had is recorded, and a new begin is looked for."""
        old, self._dialogue = self._dialogue, None
        if isinstance(old, Http1):
            old.now = at
            old.give_up(why)
        elif old is not None:
            old.closed(at, True)
        self._first.clear()
        self.lost = True

    def _data(self, client: bool, data: bytes, at: float) -> None:
        if self._dialogue is None:
            if not client:
                # who was connected to speaks first, or the question was missed
                if not self._first and not self.lost:
                    self._dialogue = Raw(self.link, "tcp", self.started)
                    self._dialogue.data(client, data, at)
                return
            self._first += data
            if self.lost and not _METHOD.match(self._first):
                self._first.clear()  # in the middle of something
                return
            protocol = sniff(bytes(self._first[:64]), self.link.target.port)
            if not protocol:
                return
            self._dialogue = self._start(protocol, at)
            data = bytes(self._first)
            self._first.clear()
        self._dialogue.data(client, data, at)

    def _start(self, protocol: str, at: float) -> Dialogue:
        makers: dict[str, Callable[[Link], Dialogue]] = {
            "http": Http1, "h2": Http2, "redis": Redis, "postgres": Postgres,
        }  # fmt: skip
        maker = makers.get(protocol)
        return maker(self.link) if maker else Raw(self.link, protocol, at)

    def end(self, client: bool, at: float) -> None:
        """One side has said all."""
        if self._dialogue is not None:
            try:
                self._dialogue.ended(client, at)
            except (Lost, Upgraded):
                self._dialogue = None

    def close(self, at: float, reset: bool) -> None:
        """The connection is over."""
        for client, stream in ((True, self.streams[0]), (False, self.streams[1])):
            self.pieces(client, stream.flush(), at)
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            try:
                dialogue.closed(at, reset)
            except (Lost, Upgraded):
                pass


class Flows:
    """All connections. record: is called with every exchange that is over.

    carried: by port and time, what a proxy of gemel's own connects for (``host.carried``).
    """

    def __init__(
        self,
        record: Callable[[Exchange], None],
        carried: Callable[[int, float], Iterable[Carried]] = lambda port, at: (),
    ) -> None:
        self._record = record
        self._carried = carried
        self._begun: dict[int, tuple[float, int]] = {}
        """By port of the proxy: of the connection that began there last when it was entered, and
        its first sequence number."""
        self._alone: set[bytes] = set()
        """Connections of which the proxy's half tells, since they were not seen in time."""
        self._flows: dict[bytes, tuple[Flow, bool]] = {}
        self.directory = Directory()
        self._virtual: dict[bytes, list[bytes]] = {}
        self._number = 0
        self.packets = self.gaps = self.evicted = self.failures = 0

    def __len__(self) -> int:
        return len(self._flows) // 2

    def lead(self, virtual: Mapping[str, Sequence[str]]) -> None:
        """By address of an instance, the virtual addresses that lead to it."""
        self._virtual = {
            socket.inet_aton(one): [socket.inet_aton(address) for address in addresses]
            for one, addresses in virtual.items()
        }

    def _over(self, exchange: Exchange) -> None:
        """Records it. An end that had no name at its first packet may have one by now."""
        find = self.directory.find
        if not exchange.source.name:
            exchange.source = find(exchange.source.address, exchange.source.port)
        if not exchange.target.name:
            exchange.target = find(exchange.target.address, exchange.target.port)
        self._record(exchange)

    def packet(self, at: float, frame: bytes) -> None:
        """Takes an Ethernet frame; what is no TCP over IPv4 is passed over. Never raises."""
        try:
            self._packet(at, frame)
        except (struct.error, IndexError):
            return  # a frame that is shorter than it says

    def _packet(self, at: float, frame: bytes) -> None:
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
            return
        size = (frame[14] & 15) * 4
        start = 14 + size
        sequence, acknowledged, offset, flags = struct.unpack_from("!IIBB", frame, start + 4)
        total = struct.unpack_from("!H", frame, 16)[0]
        begin = start + (offset >> 4) * 4
        data = frame[begin : 14 + total if total else len(frame)]
        self.packets += 1
        key = frame[26:34] + frame[start : start + 4]
        if key[:4] in self._virtual:
            key = self._behind(key)
        found = self._flows.get(key)
        if flags & (_SYN | _ACK) == _SYN and found is not None:
            self._remove(key, at, False)  # the same ports again
            found = None
        if found is None:
            if flags & _RST or (not data and not flags & _SYN):
                return
            found = self._open(key, flags, data, at, sequence)
        flow, client = found
        flow.seen = at
        if flags & _RST:
            self._remove(key, at, True)
            return
        if not flow.silent:
            self._take(flow, client, sequence, acknowledged, flags, data, at)
        elif flags & _FIN:
            flow.streams[not client].ended = True
        if flow.streams[0].ended and flow.streams[1].ended:
            self._remove(key, at, False)

    def _behind(self, key: bytes) -> bytes:
        """The key of the connection to a virtual address that an instance behind it answers.

        Packets are seen where they enter a bridge: those of the caller before the kernel's
        translation, those of the instance before it, too.
        """
        for address in self._virtual[key[:4]]:
            found = self._flows.get(address + key[4:])
            if found is not None and found[0].other in (b"", key):
                flow = found[0]
                if not flow.other:
                    flow.other = key
                    port = struct.unpack("!H", key[8:10])[0]
                    flow.link.target = self.directory.find(_address(key[:4]), port)
                return address + key[4:]
        return key

    def _take(
        self, flow: Flow, client: bool, sequence: int, acknowledged: int, flags: int,
        data: bytes, at: float,
    ) -> None:  # fmt: skip
        stream, other = flow.streams if client else flow.streams[::-1]
        if flags & _SYN:
            stream.begin(sequence)
            sequence += 1
        if flags & _ACK and other.waits:
            flow.pieces(not client, other.acknowledged(acknowledged), at)
        if data:
            flow.pieces(client, stream.push(sequence % (1 << 32), data), at)
        if flags & _FIN:
            stream.end(sequence + len(data))
        if stream.ended and flags & _FIN:
            flow.end(client, at)

    def _open(
        self, key: bytes, flags: int, data: bytes, at: float, sequence: int
    ) -> tuple[Flow, bool]:
        """A connection that is seen for the first time, perhaps in its midst."""
        source, target = _address(key[:4]), _address(key[4:8])
        port, other = struct.unpack("!HH", key[8:12])
        if flags & _SYN:
            client = not flags & _ACK
        else:
            client = bool(_METHOD.match(data) or data.startswith(PREFACE[:16])) or other < port
        find = self.directory.find
        ends = (find(source, port), find(target, other))
        if not client:
            ends = ends[::-1]
        if len(self._flows) >= 2 * FLOWS:
            self._evict(at)
        self._number += 1
        near = None
        if not ends[0].instance:
            begin = sequence if flags & _SYN and client else -1
            near = self._near(key if client else _reverse(key), at, begin)
        flow = Flow(Link(self._number, *ends, self._over), at)
        if near is not None:
            self._join(flow, near)
        if flags & _SYN:
            self._alone.discard(key if client else _reverse(key))  # another one
        else:
            flow.lost = True
            flow.silent = flow.silent or key in self._alone or _reverse(key) in self._alone
        self._flows[key] = (flow, client)
        self._flows[_reverse(key)] = (flow, not client)
        return flow, client

    def _near(self, key: bytes, at: float, sequence: int) -> Carried | None:
        """What a connection from the host carries on, if it is the proxy's.

        sequence: its first number, -1 if its begin was not seen. What the proxy has entered is
        one connection: another from the same port is somebody else's.
        """
        port = int.from_bytes(key[8:10])
        for one in self._carried(port, at):
            if one.key[10:12] != key[10:12]:
                continue
            if one.key[4:8] != key[4:8] and one.key[4:8] not in self._virtual.get(key[4:8], ()):
                continue
            if sequence >= 0:
                begun = one.opened, sequence
                before = self._begun.setdefault(port, begun)
                if before[0] == one.opened and before != begun:
                    continue
                self._begun[port] = begun
            return one
        return None

    def _join(self, flow: Flow, near: Carried) -> None:
        """A connection of the proxy's is one with that which it carries on, where that is seen:
        its calls are told there, with the caller's times. Else they are told here."""
        found = self._flows.get(near.key)
        link = flow.link
        if found is not None and found[1] and not found[0].silent:
            link, flow.silent = found[0].link, True
        else:
            port = int.from_bytes(near.key[8:10])
            link.source = self.directory.find(_address(near.key[:4]), port)
            if not near.once:
                flow.near = near.key
                self._alone.add(near.key)
        link.carry(flow.link.target, near.fault, near.once)

    def _remove(self, key: bytes, at: float, reset: bool) -> None:
        found = self._flows.pop(key, None)
        self._flows.pop(_reverse(key), None)
        if found is not None:
            flow = found[0]
            self._alone.discard(flow.near)
            flow.close(at, reset)
            self.gaps += flow.missed
            self.failures += flow.failures

    def _evict(self, at: float) -> None:
        """Forgets the connections that were idle longest."""
        oldest = sorted(self._flows.items(), key=lambda item: item[1][0].seen)
        for key, _ in oldest[: len(oldest) // 8]:
            if key in self._flows:
                self.evicted += 1
                self._remove(key, at, True)

    def sweep(self, now: float) -> None:
        """Forgets what was idle for IDLE seconds. To be called now and then."""
        for key, (flow, _) in list(self._flows.items()):
            if now - flow.seen > IDLE:
                self._remove(key, now, False)

    def close(self, now: float) -> None:
        """Everything is over."""
        for key in list(self._flows):
            self._remove(key, now, False)


def _address(raw: bytes) -> str:
    return f"{raw[0]}.{raw[1]}.{raw[2]}.{raw[3]}"


def _reverse(key: bytes) -> bytes:
    return key[4:8] + key[:4] + key[10:12] + key[8:10]
