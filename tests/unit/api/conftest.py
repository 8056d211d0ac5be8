"""A server on a real unix socket in front of the engine in memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gemel.api import serve
from tests.unit.api.memory import MemoryEngine


class Api:
    """A client of one served engine."""

    def __init__(self, engine: MemoryEngine, socket: Path, session: aiohttp.ClientSession) -> None:
        self.engine = engine
        self.socket = socket
        self.session = session
        self.shutdowns = 0

    async def call(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Status, decoded body (or bytes), headers."""
        if body is not None:
            options.setdefault("headers", {})["Content-Type"] = "application/json"
            options["data"] = body if isinstance(body, bytes) else msgspec.json.encode(body)
        url = f"http://d{path}"
        async with self.session.request(method, url, **options) as response:
            data = await response.read()
            if response.content_type == "application/json" and data.count(b"\n") == 1:
                return response.status, msgspec.json.decode(data), response.headers
            return response.status, data, response.headers

    async def make(self, name: str = "box", **config: Any) -> str:
        """Creates a container and gives back its id."""
        status, made, _ = await self.call(
            "POST", f"/v1.41/containers/create?name={name}", {"Image": "i", **config}
        )
        assert status == 201
        return str(made["Id"])

    async def raw(self, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own on which ``request`` has been sent."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(request.encode())
        return reader, writer


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


Until = Callable[[Callable[[], Any]], Awaitable[None]]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    engine = MemoryEngine()
    # a socket's path has 107 bytes at most, pytest's tmp_path may have more
    with tempfile.TemporaryDirectory(prefix="gemel-api-") as folder:
        socket = Path(folder) / "s"
        stopped: list[bool] = []
        server = await serve(engine, socket, on_shutdown=lambda: stopped.append(True))
        connector = aiohttp.UnixConnector(str(socket))
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Api(engine, socket, session)
        await server.close(1)
        assert not socket.exists()
