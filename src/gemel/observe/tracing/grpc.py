"""OTLP over gRPC: the three Export methods, on the h2 library, in one asyncio protocol.

A connection that speaks no HTTP/2 any more, or asks for too much, is closed; no other one notices.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from h2 import config, connection, events, exceptions
from h2.settings import SettingCodes

from gemel.errors import InvalidInput
from gemel.observe.tracing.inflate import LIMIT, inflate

log = logging.getLogger("gemel.traces")

_METHODS = {
    f"/opentelemetry.proto.collector.{name}.v1.{service}/Export": name
    for name, service in (
        ("trace", "TraceService"), ("logs", "LogsService"), ("metrics", "MetricsService"),
    )
}  # fmt: skip
OK, INVALID, EXHAUSTED, UNIMPLEMENTED = 0, 3, 8, 12
_STREAMS, _WINDOW = 32, 1 << 20
#: Bytes that all requests of one connection may hold at once.
_HELD = LIMIT + (1 << 20)

#: what, data → answer. Raises InvalidInput.
Export = Callable[[str, bytes], bytes]


class _Request:
    """One call on its way: the method, the body so far."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.method = headers.get(":path", "")
        self.encoding = headers.get("grpc-encoding", "")
        self.body = bytearray()

    def message(self) -> bytes:
        """The one message of the call. Raises InvalidInput."""
        if len(self.body) < 5:
            raise InvalidInput("no message")
        packed, size = struct.unpack(">BI", self.body[:5])
        if size != len(self.body) - 5:
            raise InvalidInput("not exactly one message")
        return inflate(bytes(self.body[5:]), self.encoding if packed else "")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


class GrpcProtocol(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, export: Export, refused: Callable[[], None]) -> None:
        self._export = export
        self._refused = refused
        self._transport: asyncio.Transport | None = None
        self._requests: dict[int, _Request] = {}
        self._held = 0
        self._h2 = connection.H2Connection(
            config.H2Configuration(client_side=False, header_encoding="utf-8")
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says what it offers."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: 16384,
            }
        )
        self._h2.increment_flow_control_window(_WINDOW)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Takes frames; what is no HTTP/2 ends the connection."""
        try:
            for event in self._h2.receive_data(data):
                self._happened(event)
        except exceptions.ProtocolError as error:
            log.info("a gRPC client: %r", error)
            self._refused()
            self._flush()
            self._close()
            return
        except (UnicodeError, ValueError, KeyError) as error:
            log.info("a gRPC client: %r", error)
            self._refused()
            self._close()
            return
        self._flush()

    def _happened(self, event: Any) -> None:
        if isinstance(event, events.RequestReceived):
            self._requests[event.stream_id] = _Request(
                {_text(key): _text(value) for key, value in event.headers}
            )
        elif isinstance(event, events.DataReceived):
            self._data(event)
        elif isinstance(event, events.StreamReset):
            self._forget(event.stream_id)
        elif isinstance(event, events.ConnectionTerminated):
            self._close()
        if isinstance(event, events.StreamEnded):
            self._answer(event.stream_id)

    def _data(self, event: Any) -> None:
        request = self._requests.get(event.stream_id)
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if request is None:
            return
        self._held += len(event.data)
        if self._held > _HELD:
            self._finish(event.stream_id, EXHAUSTED, "too much at once")
        else:
            request.body += event.data

    def _answer(self, stream: int) -> None:
        request = self._requests.get(stream)
        if request is None:
            return
        what = _METHODS.get(request.method)
        if what is None:
            return self._finish(stream, UNIMPLEMENTED, f"no method {request.method[:100]}")
        try:
            data = self._export("traces" if what == "trace" else what, request.message())
        except InvalidInput as error:
            return self._finish(stream, INVALID, error.brief)
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._h2.send_data(stream, struct.pack(">BI", 0, len(data)) + data)
        self._h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        self._forget(stream)

    def _finish(self, stream: int, status: int, message: str) -> None:
        """Ends a call that failed."""
        self._refused()
        self._forget(stream)
        self._h2.send_headers(
            stream,
            [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", str(status)),
                ("grpc-message", quote(message)),
            ],
            end_stream=True,
        )

    def _forget(self, stream: int) -> None:
        request = self._requests.pop(stream, None)
        if request is not None:
            self._held -= len(request.body)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets go of what was on its way."""
        self._requests.clear()
        self._transport = None
