"""Health checks from outside, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from gemel.engine import probes
from gemel.errors import InvalidInput


@contextlib.asynccontextmanager
async def _server(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every connection's first line so, and ends it; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            seen = await reader.readline()
            writer.write(answer.replace(b"SEEN", seen.strip()))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield str(server.sockets[0].getsockname()[1])


async def test_http() -> None:
    async with _server(b"HTTP/1.1 204 No Content\r\n\r\n") as port:
        assert await probes.run(["HTTP", port], "127.0.0.1") == (0, "HTTP status 204")
        assert (await probes.run(["HTTP", port, "/a", "200,204"], "127.0.0.1"))[0] == 0
        assert (await probes.run(["HTTP", port, "/a", "200"], "127.0.0.1"))[0] == 1
    async with _server(b"HTTP/1.0 503 No\r\nA: b\r\n\r\nSEEN is ill") as port:
        status, words = await probes.run(["HTTP", port, "/x"], "127.0.0.1")
        assert (status, words) == (1, "HTTP status 503 for /x: GET /x HTTP/1.1 is ill")
    for nonsense in (b"", b"SSH-2.0-x\r\n", b"HTTP/1.1", b"x" * 100_000):
        async with _server(nonsense) as port:
            assert (await probes.run(["HTTP", port], "127.0.0.1"))[0] == 1


async def test_tcp() -> None:
    async with _server(b"") as port:
        assert (await probes.run(["TCP", port], "127.0.0.1"))[0] == 0
    status, words = await probes.run(["TCP", port], "127.0.0.1")
    assert status == 1
    assert "refused" in words


async def test_grpc() -> None:
    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"":
            return b"\x08\x01"
        if request == b"\x0a\x03ill":
            return b"\x08\x02"
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")

    handler = grpc.unary_unary_rpc_method_handler(check)
    server = grpc.server(ThreadPoolExecutor(2))
    service = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
    server.add_generic_rpc_handlers((service,))
    port = str(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    try:
        async with asyncio.timeout(30):
            found = await probes.run(["GRPC", port], "127.0.0.1")
            ill = await probes.run(["GRPC", port, "ill"], "127.0.0.1")
            unknown = await probes.run(["GRPC", port, "nobody"], "127.0.0.1")
    finally:
        server.stop(0).wait(20)
    assert found == (0, "gRPC health: SERVING")
    assert ill == (1, "gRPC health: NOT_SERVING")
    assert unknown[0] == 1
    async with _server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert (await probes.run(["GRPC", port], "127.0.0.1"))[0] == 1


@pytest.mark.parametrize(
    "test",
    [
        ["HTTP"],
        ["HTTP", "x"],
        ["HTTP", "80", "healthz"],
        ["HTTP", "80", "/a b"],
        ["HTTP", "80", "/\r\nHost: x"],
        ["HTTP", "80", "/", "20"],
        ["HTTP", "80", "/", "200", "more"],
        ["TCP", "70000"],
        ["TCP", "80", "x"],
        ["GRPC", "80", "x" * 200],
    ],
)
def test_nonsense_is_refused(test: list[str]) -> None:
    with pytest.raises(InvalidInput):
        probes.check(test)
