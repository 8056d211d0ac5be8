"""What services send is taken, whatever protocol it comes by; what is hostile is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from h2 import config, connection, events
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from gemel.engine import otelmetrics
from gemel.errors import InvalidInput
from gemel.observe.capture.records import Call, Peer
from gemel.observe.tracing import export, inflate, listen, otlp, store
from gemel.observe.tracing.grpc import GrpcProtocol
from gemel.observe.tracing.records import Ask, Point
from gemel.observe.tracing.store import Store

WEB = Peer("10.0.0.1", 80, "a" * 64, "shop-web-1", "web", "shop")
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def request(spans: int = 1, **fields: Any) -> Any:
    made = trace_service_pb2.ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    for n in range(spans):
        given = {"trace_id": b"t" * 16, "span_id": struct.pack(">Q", n + 1), "name": "work"}
        scope.spans.add(**(given | fields), start_time_unix_nano=10**18, end_time_unix_nano=10**18)
    return made


def test_protobuf_and_json_are_the_same() -> None:
    binary = otlp.decode("traces", request().SerializeToString(), as_json=False)
    text = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": (b"t" * 16).hex(),
                                "spanId": f"{1:016x}",
                                "name": "work",
                                "startTimeUnixNano": str(10**18),
                                "endTimeUnixNano": 10**18,
                                "unknown": [1],
                            }
                        ]
                    }
                ]
            }
        ]
    }
    assert otlp.decode("traces", json.dumps(text).encode(), as_json=True) == binary
    (span,) = otlp.spans(binary, WEB)
    assert (span.service, span.start, span.kind) == ("web", 1e9, "internal")


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"resourceSpans": 5}', b"\xff" * 9,
                                  b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"x"}]}]}]}',
                                  b"[" * 100_000])  # fmt: skip
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        otlp.decode("traces", data, as_json=True)
    with pytest.raises(InvalidInput):
        otlp.decode("traces", b"\xff" + data, as_json=False)


def test_ids_of_a_wrong_size_are_left_out() -> None:
    assert list(otlp.spans(request(trace_id=b"short"), WEB)) == []
    (span,) = otlp.spans(request(parent_span_id=b"short", kind=99), WEB)
    assert (span.parent, span.kind) == ("", "internal")


def test_unpacking_is_bounded() -> None:
    assert inflate.inflate(gzip.compress(b"x" * 1000), "gzip") == b"x" * 1000
    for data, encoding in (
        (gzip.compress(bytes(inflate.LIMIT + 1)), "gzip"),
        (gzip.compress(b"x")[:-9], "gzip"),
        (b"rubbish", "deflate"),
        (b"", "br"),
    ):
        with pytest.raises(InvalidInput):
            inflate.inflate(data, encoding)


class Wire(asyncio.Transport):
    """What a protocol writes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True


class Server:
    """A server's side of one connection, and a client of it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.refused = 0
        self.wire = Wire()
        self.protocol = GrpcProtocol(self.take, self.refuse)
        self.protocol.connection_made(self.wire)
        self.client = connection.H2Connection(config.H2Configuration(header_encoding="utf-8"))
        self.client.initiate_connection()

    def take(self, what: str, data: bytes) -> bytes:
        if data == b"bad":
            raise InvalidInput("bad")
        self.got.append((what, data))
        return b""

    def refuse(self) -> None:
        self.refused += 1

    def call(self, path: str, body: bytes, *, encoding: str = "") -> dict[str, str]:
        """The headers and trailers that answer."""
        stream = self.client.get_next_available_stream_id()
        head = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x")]
        extra = [("grpc-encoding", encoding)] if encoding else []
        self.client.send_headers(stream, head + extra)
        self.client.send_data(stream, body, end_stream=True)
        self.protocol.data_received(self.client.data_to_send())
        found: dict[str, str] = {}
        for event in self._events():
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                found |= {str(key): str(value) for key, value in event.headers}
        return found

    def _events(self) -> Iterator[Any]:
        data, self.wire.sent = self.wire.sent, b""
        yield from self.client.receive_data(data)


def message(data: bytes, packed: int = 0) -> bytes:
    return struct.pack(">BI", packed, len(data)) + data


def test_calls_of_grpc() -> None:
    server = Server()
    assert server.call(EXPORT, message(b"data"))["grpc-status"] == "0"
    packed = message(gzip.compress(b"data"), 1)
    assert server.call(EXPORT, packed, encoding="gzip")["grpc-status"] == "0"
    assert server.got == [("traces", b"data")] * 2
    assert server.call("/other/Method", message(b""))["grpc-status"] == "12"
    for wrong in (message(b"bad"), b"", b"\0\0\0\0\x09x", message(b"x", 1) + b"y"):
        assert server.call(EXPORT, wrong)["grpc-status"] == "3"
    assert server.refused == 5
    assert server.call(EXPORT, message(b"after"))["grpc-status"] == "0"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
def test_rubbish_ends_one_connection_only(pieces: list[bytes], after_preface: bool) -> None:
    server = Server()
    if after_preface:
        server.protocol.data_received(server.client.data_to_send())
    for piece in pieces:
        if not server.wire.closed:
            server.protocol.data_received(piece)
    server.protocol.connection_lost(None)


async def test_one_sender_cannot_take_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "OF_ONE", 3)
    intake = listen.Intake(lambda what, message, address: None, lambda: None)
    server = await asyncio.get_running_loop().create_server(intake.protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    taken = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    late, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(late.read(), 60) == b""
    writer.close()
    for reader, one in taken:  # those go on
        one.write(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"404" in await asyncio.wait_for(reader.readline(), 60)
        one.close()
    server.close()
    for _ in range(3000):
        if not intake.connections:
            break
        await asyncio.sleep(0.02)
    assert not intake.connections


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SPANS", 10)
    monkeypatch.setattr(store, "SERIES", 2)
    kept = Store()
    kept.take("traces", request(30), WEB)
    assert (kept.told().kept_spans, kept.counts.forgotten) == (10, 20)
    for n in range(5):
        kept._point(Point(f"m{n}", "", "gauge", "", {}, "web"))
    assert len(kept.points()) == 2


def test_exports_of_the_services_are_no_calls() -> None:
    kept = Store()
    gateway = Peer("10.0.0.254", 4318, name="host")
    kept.observe(Call("1", "http", 1.0, 1.0, WEB, gateway, "POST", "/v1/traces"))
    kept.observe(Call("2", "http", 1.0, 1.0, WEB, gateway, "POST", "/other"))
    assert (kept.told().kept_calls, kept.seen) == (1, 2)
    (found,) = kept.find(Ask())
    assert found[1].root == "POST /other"


def test_what_is_exported_can_be_read_back() -> None:
    kept = Store()
    events = [{"name": "retry", "time_unix_nano": 5, "attributes": []}]
    kept.take("traces", request(3, events=events), WEB)
    (joined,) = kept.traces()
    spans = [
        span
        for line in export.requests(joined)
        for span in otlp.spans(otlp.decode("traces", line, as_json=True), WEB)
    ]
    assert {span.id for span in spans} == {f"{n:016x}" for n in (1, 2, 3)}
    assert {span.trace for span in spans} == {(b"t" * 16).hex()}
    assert all(span.events[0]["name"] == "retry" for span in spans)


@pytest.mark.parametrize(
    ("point", "name"),
    [
        (Point("http.server.duration", "s", "histogram", "", {}, ""),
         "otel_http_server_duration_seconds"),
        (Point("requests", "{request}", "counter", "", {}, ""), "otel_requests_total"),
        (Point("sent.bytes", "By", "counter", "", {}, ""), "otel_sent_bytes_total"),
        (Point("load", "1", "gauge", "", {}, ""), "otel_load"),
    ],
)  # fmt: skip
def test_names_of_metrics(point: Point, name: str) -> None:
    assert otelmetrics.name_of(point) == name


def test_labels_of_metrics() -> None:
    point = Point("x", "", "gauge", "", {"a.b": "1", "a-b": "2", "9": "3", "le": "4"}, "web")
    assert otelmetrics.labels_of(point) == {
        "service": "web", "a_b": "1", "label_9": "3", "label_le": "4",
    }  # fmt: skip
