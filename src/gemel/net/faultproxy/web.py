"""HTTP/1.1 with faults: a share of the requests is answered with a status, or late.

aiohttp on both sides: a request is read, and written anew, as it is but for what concerns the
connection alone (RFC 9110, 7.6.1).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from contextvars import ContextVar

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from gemel.host.carried import Address, Ledger
from gemel.net.faultproxy.flow import CONNECT, MOST, PIECE, wanted
from gemel.net.faultproxy.protocol import Edge, Table

#: Headers of one connection (RFC 9110, 7.6.1).
_HOP = {
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
    "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
MARK = "X-Gemel-Fault"
"""Header of an answer that the fault has touched, with its number."""

#: The connection whose request is carried on now, and its fault: that of a socket made for it.
_For: ContextVar[tuple[Address, Address, int]] = ContextVar("_For")


class Web:
    """Answers requests in the place of the target, or with its answer."""

    def __init__(self, table: Table, ledger: Ledger) -> None:
        self._table = table
        self._ledger = ledger
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Web:
        self._session = ClientSession(
            auto_decompress=False,
            connector=TCPConnector(
                limit=MOST, force_close=True, socket_factory=lambda _: self._socket()
            ),
            timeout=ClientTimeout(total=None, sock_connect=CONNECT),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def _socket(self) -> socket.socket:
        return self._ledger.socket(*_For.get(), once=True)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        transport = request.transport
        sock = transport.get_extra_info("socket") if transport else None
        target = wanted(sock) if sock is not None else None
        if target is None or transport is None:
            return _told(404, 0, "there is nothing here")
        source: Address = transport.get_extra_info("peername")[:2]
        edge = self._table.find(source[0], *target, http=True)
        if edge is not None:
            await asyncio.sleep(edge.delay())
        hit = edge is not None and edge.hits()
        if edge is not None and hit and edge.status:
            return _told(edge.status, edge.number, "a fault that gemel was asked for")
        if request.headers.get("Upgrade"):
            return _told(501, edge.number if edge else 0, "an HTTP fault carries no upgrades")
        if request.headers.get("Expect", "").lower() == "100-continue":
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        _For.set((source, target, edge.number if edge else 0))
        try:
            return await self._forward(request, target, edge if hit else None)
        except (ClientError, OSError, TimeoutError):
            transport.abort()  # as if the target itself had broken off
            raise

    async def _forward(
        self, request: web.BaseRequest, target: Address, edge: Edge | None
    ) -> web.StreamResponse:
        assert self._session is not None
        url = URL.build(scheme="http", host=target[0], port=target[1])
        body = request.content.iter_chunked(PIECE) if request.body_exists else None
        async with self._session.request(
            request.method,
            URL(f"{url}{request.path_qs}", encoded=True),
            headers=_kept(request.headers.items()),
            data=body,
            allow_redirects=False,
        ) as answer:
            made = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=_kept(answer.headers.items())
            )
            if edge is not None:
                made.headers[MARK] = str(edge.number)
            await made.prepare(request)
            if edge is not None:
                await asyncio.sleep(edge.body_delay)
            async for piece in answer.content.iter_chunked(PIECE):
                await made.write(piece)
            await made.write_eof()
            return made


def _kept(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    listed = list(headers)
    named = {
        word.strip().lower()
        for key, value in listed
        if key.lower() == "connection"
        for word in value.split(",")
    }
    return CIMultiDict(
        (key, value)
        for key, value in listed
        if key.lower() not in _HOP and key.lower() not in named and key.lower() != "expect"
    )


def _told(status: int, number: int, words: str) -> web.Response:
    response = web.Response(status=status, text=f"{words}\n")
    if number:
        response.headers[MARK] = str(number)
    return response
