"""``python -m gemel.observe.replaying``: a child of the engine; it ends with its standard input.

Each line is an ``Order``, in the place of the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

import msgspec
from aiohttp import web

from gemel.host import privileges
from gemel.observe.replaying.answers import Answers
from gemel.observe.replaying.protocol import Order, Told

#: Bytes of an order, and of the body of a request.
LIMIT, BODY = 1 << 30, 16 << 20
MARK = "X-Gemel-Replay"
_OWN = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade")
)


class Server:
    """Listens where the order says."""

    def __init__(self) -> None:
        self._answers = Answers(())
        self._runner: web.ServerRunner | None = None

    async def obey(self, order: Order) -> Told:
        """Takes the place of what was answered before."""
        await self.close()
        told = Told()
        self._answers = Answers(order.services)
        self._runner = web.ServerRunner(web.Server(self.handle, access_log=None))
        await self._runner.setup()
        for address in order.addresses:
            for port in self._answers.ports:
                try:
                    await web.TCPSite(self._runner, address, port, shutdown_timeout=1).start()
                except OSError as error:
                    told.problems.append(f"{address}:{port}: {error.strerror or error}")
        return told

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        transport = request.transport
        port = transport.get_extra_info("sockname")[1] if transport else 0
        body = await self._body(request)
        service = self._answers.service(request.headers.get("Host", ""), port)
        found = self._answers.find(service, request.method, request.path_qs, port, body)
        if found is None:
            known = self._answers.near(service)
            words = {
                "message": f"no answer of {service or 'this host'} to {request.method} "
                f"{request.path_qs} was recorded",
                "recorded": known,
            }
            return web.Response(
                status=501,
                body=json.dumps(words).encode(),
                headers={"Content-Type": "application/json", MARK: "missing"},
            )
        response = web.Response(status=found.status, body=found.answer)
        for name, value in found.headers:
            if name.lower() not in _OWN and not name.startswith(":"):
                with contextlib.suppress(ValueError):
                    response.headers.add(name, value)
        response.headers[MARK] = service
        return response

    async def _body(self, request: web.BaseRequest) -> bytes:
        pieces, size = [], 0
        async for piece in request.content.iter_chunked(64 << 10):
            size += len(piece)
            if size > BODY:
                return b""  # then it is no body that was recorded
            pieces.append(piece)
        return b"".join(pieces)

    async def close(self) -> None:
        """Listens nowhere."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def serve() -> None:
    """Until the engine is gone."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    server = Server()
    while line := await orders.readline():
        told = await server.obey(msgspec.json.decode(line, type=Order))
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()
    await server.close()


def main() -> None:
    """Becomes nobody, serves."""
    privileges.set_name("gemel-replay")
    if os.geteuid() == 0:
        privileges.drop_root(keep=(privileges.NET_BIND_SERVICE,))
    asyncio.run(serve())


if __name__ == "__main__":
    main()
