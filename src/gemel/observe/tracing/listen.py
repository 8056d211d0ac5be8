"""Both of OTLP's ports take both protocols: HTTP/2's first bytes tell gRPC from HTTP/1.

A client that was told only one address so finds what it speaks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from gemel.errors import InvalidInput
from gemel.observe.capture.records import Peer
from gemel.observe.tracing import otlp
from gemel.observe.tracing.grpc import GrpcProtocol
from gemel.observe.tracing.inflate import LIMIT, inflate

log = logging.getLogger("gemel.traces")

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Connections at once, and of one address; seconds that a client may take until its first bytes,
#: or be silent.
CONNECTIONS, OF_ONE, PATIENCE, IDLE = 512, 64, 20.0, 300.0
_PATHS = {f"/v1/{what}": what for what in ("traces", "logs", "metrics")}

#: what, message, address of the sender.
Take = Callable[[str, Any, str], None]


class Intake:
    """Takes what services send. Refuses what is no OTLP; never raises."""

    def __init__(self, take: Take, refused: Callable[[], None]) -> None:
        self._take = take
        self._refused = refused
        self.connections: Counter[str] = Counter()
        """By address."""
        self._http = web.Server(
            self._handle, access_log=None, auto_decompress=False, max_line_size=16384,
            keepalive_timeout=IDLE,
        )  # fmt: skip

    def protocol(self) -> asyncio.Protocol:
        """For a new connection."""
        return _Sniffer(self)

    def spoken(self, first: bytes, address: str) -> asyncio.BaseProtocol | None:
        """The protocol that begins with these bytes; None while that is not sure."""
        if first.startswith(_PREFACE):
            return GrpcProtocol(
                lambda what, data: self._export(what, data, False, address), self._refused
            )
        if _PREFACE.startswith(first):
            return None
        return self._http()

    def _export(self, what: str, data: bytes, as_json: bool, address: str) -> bytes:
        self._take(what, otlp.decode(what, data, as_json), address)
        return otlp.answer(what, as_json)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._http_answer(request)
        except InvalidInput as error:
            self._refused()
            return _refusal(400, f"{error.brief}: {error.details}".rstrip(": "))

    async def _http_answer(self, request: web.BaseRequest) -> web.StreamResponse:
        what = _PATHS.get(request.path.rstrip("/"))
        if what is None:
            return _refusal(404, "OTLP is taken at /v1/traces, /v1/logs and /v1/metrics")
        if request.method != "POST":
            return _refusal(405, "only POST")
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        as_json = kind == "application/json"
        if not as_json and kind != "application/x-protobuf":
            return _refusal(415, "application/x-protobuf or application/json")
        data = bytearray()
        async for piece in request.content.iter_any():
            data += piece
            if len(data) > LIMIT:
                self._refused()
                return _refusal(413, f"a request may have {LIMIT >> 20} MiB")
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        body = inflate(bytes(data), encoding)
        peer = request.transport.get_extra_info("peername") if request.transport else None
        answer = self._export(what, body, as_json, peer[0] if peer else "")
        return web.Response(body=answer, headers={"Content-Type": kind})


def _refusal(status: int, words: str) -> web.Response:
    response = web.Response(status=status, text=words + "\n")
    if status != 400:
        response.force_close()
    return response


class _Sniffer(asyncio.Protocol):
    """Waits for the first bytes, and hands the connection over."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._first = b""
        self._address = ""
        self._transport: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None
        self._inner: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Closes a connection that is one too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if peer else ""
        there = self._intake.connections
        there[self._address] += 1
        if there.total() > CONNECTIONS or there[self._address] > OF_ONE:
            transport.abort()
            return
        self._late = asyncio.get_running_loop().call_later(PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        """The first bytes decide; all others go on to whom they decided for."""
        if self._inner is not None:
            self._wait(IDLE)
            self._inner.data_received(data)
            return
        self._first += data
        self._inner = self._intake.spoken(self._first, self._address)
        if self._inner is not None:
            self._inner.connection_made(self._transport)
            first, self._first = self._first, b""
            self._wait(IDLE)
            self._inner.data_received(first)

    def _wait(self, seconds: float) -> None:
        if self._late is not None and self._transport is not None:
            self._late.cancel()
            self._late = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def eof_received(self) -> bool | None:
        """As the inner protocol has it."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """As the inner protocol has it."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """As the inner protocol has it."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of it."""
        there = self._intake.connections
        there[self._address] -= 1
        if there[self._address] <= 0:
            del there[self._address]
        if self._late is not None:
            self._late.cancel()
        if self._inner is not None:
            self._inner.connection_lost(exc)


def peer_of(peers: dict[str, Peer], address: str) -> Peer:
    """Who sends from an address."""
    return peers.get(address) or Peer(address=address)
