"""Connections put together: every protocol, all that goes wrong on the way, hostile bytes."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.observe.capture.directory import LINGER, Directory
from gemel.observe.capture.flows import Flows, server_name
from gemel.observe.capture.records import Exchange, Peer
from gemel.observe.capture.tcp import HELD, Gap, Stream
from tests.unit.observe.wire import ACK, CLIENT, FIN, RST, SERVER, Frame, Wire

GET = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

PEERS = {CLIENT: Peer(name="a"), SERVER: Peer(name="b", service="back")}


def read(*frames: Frame) -> list[Exchange]:
    """The exchanges that the frames hold."""
    found: list[Exchange] = []
    flows = Flows(found.append)
    flows.directory.learn(PEERS, 0.0)
    for at, frame in frames:
        flows.packet(at, frame)
    assert flows.failures == 0
    return found


def brief(found: list[Exchange]) -> list[tuple[str, str, str, int | None]]:
    return [(e.protocol, e.method, e.path, e.status) for e in found]


def test_one_call_with_everything() -> None:
    wire = Wire()
    (one,) = read(
        *wire.open(),
        wire.ask(b"POST /pay?token=t1 HTTP/1.1\r\nHost: shop\r\nCookie: a=1; b=2\r\n"),
        wire.ask(b'Content-Length: 24\r\n\r\n{"password": "x", "n":1}'),
        wire.answer(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
        wire.answer(b"0\r\n\r\n"),
        *wire.close(),
    )
    assert (one.method, one.path, one.host, one.status) == ("POST", "/pay?token=***", "shop", 503)
    assert (one.source.name, one.target.service, one.target.port) == ("a", "back", 80)
    assert one.failed
    assert ("Cookie", "a=***; b=***") in one.request.headers
    assert (one.request.body, one.request.size) == ('{"password": "***", "n":1}', 24)
    assert (one.response.body, one.response.size) == ("ab", 2)
    assert one.first_byte == pytest.approx(0.002)
    assert one.duration == pytest.approx(0.003)


def test_pipelined_head_interim_and_upgrades_that_are_refused() -> None:
    wire = Wire()
    ask = b"GET /%d HTTP/1.1\r\n\r\nHEAD /%d HTTP/1.1\r\n\r\n"
    found = read(
        *wire.open(),
        wire.ask(ask % (1, 2) + ask % (3, 4)),
        wire.answer((OK + OK[:-2]) * 2),
        wire.ask(b"POST /5 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
        wire.answer(b"HTTP/1.1 100 Continue\r\n\r\n"),
        wire.ask(b"hi"),
        wire.answer(b"HTTP/1.1 204 None\r\n\r\n"),
        wire.ask(b"GET /6 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        wire.answer(OK),
        wire.ask(GET),
        wire.answer(OK),
        *wire.close(),
    )
    assert [(e.path, e.status) for e in found] == [
        ("/1", 200), ("/2", 200), ("/3", 200), ("/4", 200), ("/5", 204), ("/6", 200), ("/a", 200),
    ]  # fmt: skip
    assert found[4].request.size == 2


def test_websocket() -> None:
    wire = Wire()
    found = read(
        *wire.open(),
        wire.ask(b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        wire.answer(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81"),
        wire.ask(b"\x82\x83"),
        *wire.close(),
    )
    assert brief(found) == [("http", "GET", "/ws", 101), ("websocket", "", "", None)]
    assert (found[1].request.size, found[1].response.size) == (2, 1)


@pytest.mark.parametrize(
    ("ask", "answer", "status", "error"),
    [
        (b"GET /\x01 HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n", 400, "not"),
        (b"GET /x HTTP/1.1\r\n\r\n", b"", None, "closed without an answer"),
        (b"GET /x HTTP/1.1\r\n\r\n", b"\0\1\2\3 nonsense", None, "not an HTTP response"),
        (b"GET /x HTTP/1.1\r\n\r\n", OK[:-1], 200, "broken off"),
        (b"GET /x HTTP/1.1\r\nA: " + b"b" * 9000 * 40, b"", None, "more than 256 KiB"),
    ],
)
def test_broken(ask: bytes, answer: bytes, status: int | None, error: str) -> None:
    wire = Wire()
    opened = wire.open()
    parts = [wire.ask(ask[at : at + 9000]) for at in range(0, len(ask), 9000)]
    (one,) = read(*opened, *parts, *([wire.answer(answer)] if answer else []), *wire.close())
    assert one.status == status
    assert error in one.error
    assert one.method == "GET"
    assert one.failed


def test_an_answer_until_the_end_and_a_reset() -> None:
    wire, other = Wire(), Wire(source=40001)
    found = read(
        *wire.open(),
        wire.ask(b"GET / HTTP/1.0\r\n\r\n"),
        wire.answer(b"HTTP/1.0 200 OK\r\n\r\nall"),
        wire.frame(False, b" of it", FIN | ACK),
        *other.open(),
        other.ask(GET),
        other.frame(False, b"", RST),
    )
    assert [(e.status, e.response.body, e.error) for e in found] == [
        (200, "all of it", ""),
        (None, "", "the connection was reset"),
    ]


def test_segments_in_any_order_twice_and_missing() -> None:
    wire = Wire()
    opened = wire.open()
    first, second = wire.ask(GET[:10]), wire.ask(GET[10:])
    answer = [wire.answer(OK[:20]), wire.answer(OK[20:])]
    (one,) = read(*opened, first, second, first, answer[1], answer[0], answer[1])
    assert (one.path, one.status) == ("/a", 200)
    # the answer to the first is not seen whole; the next call is seen again
    wire = Wire()
    opened, asked = wire.open(), wire.ask(GET)
    wire.answer(OK[:10])
    tail = wire.answer(OK[10:])
    found = read(*opened, asked, tail, wire.ask(GET), wire.answer(OK), *wire.close())
    assert [(e.status, bool(e.error)) for e in found] == [(None, True), (200, False)]


def test_joined_in_its_midst() -> None:
    wire = Wire()
    found = read(wire.answer(b"rest of something"), wire.ask(GET), wire.answer(OK))
    assert brief(found) == [("http", "GET", "/a", 200)]
    assert found[0].source.name == "a"


def test_redis() -> None:
    wire = Wire(6379)
    found = read(
        *wire.open(),
        wire.ask(b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n*2\r\n$4\r\nAUTH\r\n$6\r\nhid"),
        wire.ask(b"den\r\n"),
        wire.answer(b"$-1\r\n-ERR bad\r\n"),
        wire.ask(b"*2\r\n$4\r\nkeys\r\n$1\r\n*\r\n"),
        wire.answer(b"*2\r\n$1\r\na\r\n$3000\r\n" + b"x" * 2000),
        wire.answer(b"x" * 1000 + b"\r\n"),
        *wire.close(),
    )
    assert [(e.method, e.path, e.failed) for e in found] == [
        ("GET", "GET foo", False), ("AUTH", "AUTH ***", True), ("KEYS", "keys *", False),
    ]  # fmt: skip
    assert found[2].response.size > 3000


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def test_postgres() -> None:
    wire = Wire(5432)
    ready = _message(b"Z", b"I")
    found = read(
        *wire.open(),
        wire.ask(struct.pack("!II", 8, 80877103)),
        wire.answer(b"N"),
        wire.ask(struct.pack("!II", 14, 3 << 16) + b"user\0\0"),
        wire.answer(_message(b"R", b"\0\0\0\0") + ready),
        wire.ask(_message(b"Q", b"create role x password 'hidden'\0")),
        wire.answer(_message(b"E", b"SERROR\0C42501\0Mno right\0\0") + ready),
        wire.ask(
            _message(b"P", b"s1\0select 1\0\0\0")
            + _message(b"B", b"\0s1\0\0\0\0\0\0\0")
            + _message(b"E", b"\0\0\0\0\0")
            + _message(b"S", b"")
        ),
        wire.answer(_message(b"1", b"") + _message(b"C", b"SELECT 1\0") + ready),
        *wire.close(),
    )
    assert [(e.method, e.path, e.message, e.failed) for e in found] == [
        ("CREATE", "create role x password '***'", "42501 no right", True),
        ("SELECT", "select 1", "SELECT 1", False),
    ]


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return (
        struct.pack("!I", len(body))[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + body
    )


def test_http2_and_grpc() -> None:
    from hpack import Encoder

    asks, answers = Encoder(), Encoder()
    head = [
        (":method", "POST"), (":path", "/shop.Pay/Do"), (":authority", "pay"),
        ("content-type", "application/grpc"), ("authorization", "Bearer hidden"),
    ]  # fmt: skip
    wire = Wire(50051)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"")
    found = read(
        *wire.open(),
        wire.ask(preface + _frame(1, 4, 1, asks.encode(head))),
        wire.ask(_frame(0, 1, 1, b"\0\0\0\0\x05hello")),
        wire.answer(_frame(4, 0, 0, b"") + _frame(1, 4, 1, answers.encode([(":status", "200")]))),
        wire.answer(_frame(0, 0, 1, b"\0\0\0\0\x02ok")),
        wire.answer(
            _frame(1, 5, 1, answers.encode([("grpc-status", "14"), ("grpc-message", "x")]))
        ),
        *wire.close(),
    )
    (one,) = found
    assert (one.protocol, one.method, one.path, one.host) == ("grpc", "POST", "/shop.Pay/Do", "pay")
    assert (one.status, one.message, one.failed) == (200, "UNAVAILABLE x", True)
    assert ("authorization", "Bearer ***") in one.request.headers


def test_tls_and_the_unknown() -> None:
    name = b"shop.example"
    extension = struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    hello = b"\x16\x03\x01" + b"\x01" * 60 + extension + b"\xff" * 20
    wire, other = Wire(443), Wire(9000, source=40001)
    found = read(
        *wire.open(), wire.ask(hello), wire.answer(b"\x16\x03\x03" + b"x" * 50), *wire.close(),
        *other.open(), other.answer(b"220 hello"), other.ask(b"QUIT"), *other.close(),
    )  # fmt: skip
    assert [(e.protocol, e.host) for e in found] == [("tls", "shop.example"), ("tcp", "")]
    assert (found[1].request.size, found[1].response.size) == (4, 9)
    assert server_name(hello[:70]) == ""


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=40), st.booleans()), max_size=40
    )
)
def test_any_segments_give_bytes_in_order(parts: list[tuple[int, bytes, bool]]) -> None:
    stream = Stream()
    for sequence, data, acknowledge in parts:
        pieces = stream.acknowledged(sequence) if acknowledge else stream.push(sequence, data)
        assert all(isinstance(p, bytes | Gap) and p for p in pieces)
    stream.flush()
    assert not stream.waits


@given(st.binary(min_size=1, max_size=600), st.randoms(use_true_random=False))
def test_shuffled_segments_give_what_was_sent(data: bytes, rng: random.Random) -> None:
    start = rng.choice((0, 7, 2**32 - 300))
    parts = []
    at = 0
    while at < len(data):
        size = rng.randint(1, 60)
        parts.append((at, data[at : at + size]))
        if rng.random() < 0.3:
            parts.append((max(0, at - 5), data[max(0, at - 5) : at + 3]))
        at += size
    rng.shuffle(parts)
    stream = Stream()
    stream.begin((start - 1) % 2**32)
    got = b""
    for at, part in parts:
        for piece in stream.push((start + at) % 2**32, part):
            assert isinstance(piece, bytes)
            got += piece
    assert got == data


def test_what_waits_is_bounded() -> None:
    stream = Stream()
    stream.begin(0)
    held = 0
    for n in range(1000):
        out = stream.push(10 + n * 2000, b"x" * 1000)
        held += 1000 - sum(len(p) for p in out if isinstance(p, bytes))
        assert held <= HELD + 1000


_SEEDS = [
    GET, OK, b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    _frame(1, 4, 1, b"\x82\x86"), _frame(4, 0, 0, b""), _frame(9, 4, 1, b"xx"),
    struct.pack("!II", 14, 3 << 16) + b"user\0\0", _message(b"Q", b"select 1\0"),
    _message(b"C", b"SELECT 1\0"), b"\x16\x03\x01" + b"\0" * 80, b"$5\r\nhello\r\n", b"*-1\r\n",
    b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"%1\r\n+a\r\n:1\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_hostile_bytes_stop_nothing(seed: int) -> None:
    """Mixed, cut, changed and repeated pieces of every protocol: no error, and all is let go."""
    rng = random.Random(seed)
    found: list[Exchange] = []
    flows = Flows(found.append)
    for number in range(30):
        wire = Wire(rng.choice((80, 443, 5432, 6379)), source=1000 + number)
        frames = wire.open() if rng.random() < 0.8 else []
        for _ in range(rng.randint(1, 25)):
            data = bytearray(b"".join(rng.choices(_SEEDS, k=rng.randint(1, 3))))
            for _ in range(rng.choice((0, 0, 1, 5))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            data = data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data
            frames.append(wire.frame(rng.random() < 0.5, bytes(data)))
        frames += wire.close() if rng.random() < 0.7 else []
        frames = [f for f in frames if rng.random() > 0.03]
        for at, frame in frames:
            if rng.random() < 0.05:
                frame = frame[: rng.randint(0, len(frame))]
            elif rng.random() < 0.05:
                changed = bytearray(frame)
                changed[rng.randrange(12, 54)] = rng.randrange(256)
                frame = bytes(changed)
            flows.packet(at, frame)
    flows.close(9999.0)
    assert flows.failures == 0
    assert len(flows) == 0
    # and one that is well is read as ever
    wire = Wire(source=9)
    before = len(found)
    for at, frame in [*wire.open(), wire.ask(GET), wire.answer(OK), *wire.close()]:
        flows.packet(at, frame)
    assert brief(found[before:]) == [("http", "GET", "/a", 200)]


def test_a_port_that_is_used_again() -> None:
    wire = Wire()
    again = Wire(start=5000)
    assert again.ports == wire.ports
    found = read(
        *wire.open(), wire.ask(GET), *again.open(), again.ask(GET), again.answer(OK), *again.close()
    )
    assert [e.status for e in found] == [None, 200]


VIRTUAL = "10.0.0.254"


def by_address(frame: Frame) -> Frame:
    """A frame of the caller as it is before the kernel has translated the virtual address."""
    at, raw = frame
    return at, raw[:30] + bytes(map(int, VIRTUAL.split("."))) + raw[34:]


@pytest.mark.parametrize("seen_twice", [False, True])
def test_a_call_by_a_virtual_address_is_told_of_who_answered(seen_twice: bool) -> None:
    found: list[Exchange] = []
    flows = Flows(found.append)
    flows.directory.learn(PEERS, 0.0)
    flows.lead({SERVER: (VIRTUAL,), "10.0.0.3": (VIRTUAL,)})
    for source in (40000, 40000, 40001):  # the same port again, and another
        wire = Wire(source=source)
        syn, answered = wire.open()
        frames = [by_address(syn), *([syn] if seen_twice else []), answered]
        frames += [by_address(wire.ask(GET)), wire.answer(OK)]
        end, over = wire.close()
        for at, frame in [*frames, by_address(end), over]:
            flows.packet(at, frame)
    assert brief(found) == [("http", "GET", "/a", 200)] * 3
    assert {(e.target.name, e.target.service, e.target.port) for e in found} == {("b", "back", 80)}
    assert flows.gaps == flows.failures == 0
    assert len(flows) == (2 if seen_twice else 0)  # what was seen twice has not ended


def test_ends_are_named_as_late_as_they_are_known() -> None:
    found: list[Exchange] = []
    flows = Flows(found.append)
    wire = Wire()
    for at, frame in wire.open():
        flows.packet(at, frame)
    flows.directory.learn(PEERS, 0.0)
    for at, frame in (wire.ask(GET), wire.answer(OK)):
        flows.packet(at, frame)
    (one,) = found
    assert (one.source.name, one.target.name, one.target.port) == ("a", "b", 80)


def test_who_has_gone_is_still_named_for_a_while() -> None:
    directory = Directory()
    directory.learn(PEERS, 0.0)
    directory.learn({SERVER: PEERS[SERVER]}, 1.0)
    assert directory.find(CLIENT, 5).name == "a"
    directory.learn({SERVER: PEERS[SERVER], CLIENT: Peer(name="new")}, 2.0)
    assert directory.find(CLIENT, 5) == Peer(CLIENT, 5, name="new")
    directory.learn({}, 3.0)
    assert [directory.find(one, 0).name for one in (CLIENT, SERVER)] == ["new", "b"]
    directory.learn({}, 4.0 + LINGER)
    assert directory.find(CLIENT, 0) == Peer(CLIENT)
