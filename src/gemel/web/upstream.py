"""The engine, as the dashboard asks it: by its API, over its socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from gemel.errors import Failed, GemelError, NotFound, Unavailable

API = "/v1.47"
#: Seconds for an answer, and for the beginning of one that goes on.
PATIENCE, BEGIN = 30.0, 15.0
#: Bytes of an answer that is read whole, and of one line of a stream.
MOST, LINE = 32 << 20, 1 << 20
_PIECE = 256 << 10

Params = dict[str, str]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Answered(GemelError):
    """The engine's own words about what it could not do. status: HTTP's."""

    def __init__(self, status: int, brief: str, details: str, resolution: str) -> None:
        super().__init__(brief, details, resolution)
        self.status = status


def path(*parts: str) -> str:
    """A path of the API; what is between its slashes is quoted."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Upstream:
    """Calls to one engine. socket: its path."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=_PIECE)
        return self._session

    async def close(self) -> None:
        """Ends all connections."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self, method: str, path: str, params: Params | None = None, body: Any = None
    ) -> Any:
        """The decoded answer, None for an empty one. Raises Answered, Unavailable."""
        data = await self.text(method, path, params, body)
        try:
            return msgspec.json.decode(data) if data.strip() else None
        except msgspec.MsgspecError as error:
            raise Failed("the engine's answer cannot be read", details=str(error)) from error

    async def text(
        self, method: str, path: str, params: Params | None = None, body: Any = None
    ) -> bytes:
        """The same, as it came."""
        sent = None if body is None else msgspec.json.encode(body)
        headers = {} if sent is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(PATIENCE):
                async with self._client().request(
                    method, f"http://gemel{API}{path}", params=params, data=sent, headers=headers
                ) as answer:
                    data = await answer.content.read(MOST) if not answer.content.at_eof() else b""
                    while not answer.content.at_eof() and len(data) < MOST:
                        data += await answer.content.read(MOST - len(data))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _gone(error) from error
        if answer.status >= 400:
            raise _answered(answer.status, data)
        return data

    async def pieces(
        self, path: str, params: Params | None = None
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """An answer that goes on, piece by piece, with its content type.

        The reader pulls: while it does not, the engine waits. Raises Answered, Unavailable.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=BEGIN)
        try:
            async with self._client().get(
                f"http://gemel{API}{path}", params=params, timeout=timeout
            ) as answer:
                if answer.status >= 400:
                    raise _answered(answer.status, await answer.content.read(LINE))
                while piece := await answer.content.readany():
                    yield answer.content_type, piece
        except (aiohttp.ClientError, OSError) as error:
            raise _gone(error) from error

    async def lines(self, path: str, params: Params | None = None) -> AsyncGenerator[bytes, None]:
        """The same in lines; one that is too long is left out."""
        rest = b""
        async with contextlib.aclosing(self.pieces(path, params)) as pieces:
            async for _, piece in pieces:
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line
                if len(rest) > LINE:
                    rest = b""

    async def hijack(self, path: str, body: Any) -> Streams:
        """A raw stream both ways. Raises Answered, Unavailable, Failed."""
        data = msgspec.json.encode(body)
        head = (
            f"POST {API}{path} HTTP/1.1\r\nHost: gemel\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        try:
            async with asyncio.timeout(BEGIN):
                reader, writer = await asyncio.open_unix_connection(self._socket, limit=_PIECE)
        except (OSError, TimeoutError) as error:
            raise _gone(error) from error
        try:
            async with asyncio.timeout(BEGIN):
                writer.write(head.encode() + data)
                await writer.drain()
                answer = await reader.readuntil(b"\r\n\r\n")
                status = int(answer.split(b" ", 2)[1])
                if status not in (101, 200):
                    raise _answered(status, await reader.read(LINE))
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise _gone(error) from error
        except GemelError:
            writer.close()
            raise
        return reader, writer


def _gone(error: BaseException) -> Unavailable:
    return Unavailable(
        "the engine does not answer",
        details=str(error) or type(error).__name__,
        resolution="`gemel dashboard` starts it again, and a new dashboard",
    )


def _answered(status: int, data: bytes) -> GemelError:
    try:
        told = msgspec.json.decode(data)
        brief = str(told.get("brief") or told.get("message") or "")
        details, resolution = str(told.get("details", "")), str(told.get("resolution", ""))
    except (msgspec.MsgspecError, AttributeError):
        brief, details, resolution = data.decode("utf-8", "replace")[:500], "", ""
    brief = brief or f"the engine answered with status {status}"
    if status == 404:
        return NotFound(brief, details, resolution)
    return Answered(status, brief, details, resolution)
