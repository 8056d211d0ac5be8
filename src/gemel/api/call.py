"""One request on its way: what a route's handler gets, and how it answers in pieces."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from gemel.api import decode
from gemel.api.errors import error_line
from gemel.api.hijack import Connection, Hangups, RawConnection
from gemel.api.query import Query
from gemel.api.respond import (
    JSON,
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    TAR,
    close_iterator,
    json_line,
)
from gemel.engine.facade import Engine
from gemel.errors import GemelError, InvalidInput

log = logging.getLogger("gemel.api")
T = TypeVar("T", bound=msgspec.Struct)

#: Bytes of a JSON body; dockerd reads as many.
MAX_BODY = 8 << 20
CHUNK = 256 << 10

Version = tuple[int, int]


class Lists:
    """Answers to lists of containers, kept for a moment: dozens of clients ask at once."""

    #: Seconds; answers tell times in words to the second.
    LASTS = 0.25
    MOST = 16

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float, bytes]] = {}

    def get(self, key: str | None, generation: int) -> bytes | None:
        """The answer for a query, if nothing has changed since it was made."""
        known = self._known.get(key) if key is not None else None
        if known is None or known[0] != generation or time.monotonic() > known[1]:
            return None
        return known[2]

    def put(self, key: str | None, generation: int, answer: bytes) -> None:
        """Keeps an answer; the oldest ones go."""
        if key is None:
            return
        self._known.pop(key, None)
        while len(self._known) >= self.MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = (generation, time.monotonic() + self.LASTS, answer)


@dataclass(slots=True)
class Call:
    """A request with everything that handlers need of it."""

    request: web.BaseRequest
    engine: Engine
    version: Version
    args: dict[str, str]
    query: Query
    hangups: Hangups
    on_shutdown: Callable[[], None]
    lists: Lists

    @property
    def connection(self) -> Connection:
        """The client's connection."""
        protocol = self.request.protocol
        assert isinstance(protocol, Connection)
        return protocol

    def streams(self) -> None:
        """From now on the handler is cancelled when the client goes away."""
        connection = self.connection
        connection.cancel_when_lost = True
        if connection.transport is None:
            raise ConnectionResetError("the client has gone")

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """The whole body. Raises InvalidInput if it is too big."""
        data = bytearray()
        async for chunk in self.request.content.iter_any():
            data += chunk
            if len(data) > limit:
                raise InvalidInput(f"the request body is larger than {limit >> 20} MiB")
        return bytes(data)

    async def json_body(self, required: bool = True, limit: int = MAX_BODY) -> bytes:
        """The body, checked to be declared as JSON, as dockerd does. Raises InvalidInput."""
        data = await self.body(limit)
        kind = self.request.headers.get("Content-Type", "")
        if data.strip() and kind.partition(";")[0].strip().lower() != JSON:
            raise InvalidInput(
                f"unsupported Content-Type header ({kind[:80]}): must be 'application/json'"
            )
        if required and not data.strip():
            raise InvalidInput("invalid JSON: got EOF while reading request body")
        return data

    async def decode(self, kind: type[T]) -> T:
        """The body as a struct. Raises InvalidInput."""
        return decode.decode(await self.json_body(), kind)

    async def decode_object(self) -> dict[str, Any]:
        """The body as an object, {} if there is none. Raises InvalidInput."""
        return decode.decode_object(await self.json_body(required=False))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they come."""
        async for chunk in self.request.content.iter_any():
            yield chunk

    def header_json(self, name: str) -> dict[str, Any] | None:
        """A base64 header that holds a JSON object; None if absent or not readable.

        dockerd ignores what it cannot read here too: a pull without credentials
        may well succeed, and if not, the registry says so.
        """
        text = self.request.headers.get(name, "").strip()
        if not text:
            return None
        try:
            padded = text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)
            value = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_"))
        except (binascii.Error, msgspec.MsgspecError, ValueError, RecursionError):
            log.warning("the header %s is not readable and was ignored", name)
            return None
        return value if isinstance(value, dict) else None

    # answers in pieces

    async def begin(
        self, content_type: str, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Sends status 200 and headers at once."""
        response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
        self.streams()
        await response.prepare(self.request)
        return response

    async def send_json_lines(
        self,
        messages: AsyncIterator[Any],
        finish: Callable[[Any], Any] | None = None,
        *,
        always: bool = False,
    ) -> web.StreamResponse:
        """Progress messages, each a line, sent at once.

        An error before the first message becomes a status (unless ``always`` 200 is
        wanted); one after it, the last message, as in dockerd. The producer is closed
        when the reader goes.
        """
        response: web.StreamResponse | None = None
        self.streams()
        try:
            async for message in messages:
                if response is None:
                    response = await self.begin(JSON)
                await response.write(json_line(finish(message) if finish else message))
        except GemelError as error:
            if response is None and not always:
                raise
            response = response or await self.begin(JSON)
            await response.write(json_line(error_line(error)))
        finally:
            await close_iterator(messages)
        if response is None:
            response = await self.begin(JSON)
        return response

    async def send_bytes(
        self,
        pieces: AsyncIterator[bytes],
        content_type: str = TAR,
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """A stream of bytes; an error in its midst breaks the connection off."""
        response: web.StreamResponse | None = None
        self.streams()
        try:
            async for piece in pieces:
                if response is None:
                    response = await self.begin(content_type, headers)
                if piece:
                    await response.write(piece)
        finally:
            await close_iterator(pieces)
        return response or await self.begin(content_type, headers)

    def stream_type(self, tty: bool) -> str:
        """Content type of attach, exec and logs."""
        return MULTIPLEXED_STREAM if not tty and self.version >= (1, 42) else RAW_STREAM

    async def hijack(self, tty: bool) -> RawConnection:
        """Takes the connection over and sends the answer that says so."""
        upgrade = self.request.headers.get("Upgrade", "")
        raw = self.connection.take_over(self.hangups)
        kind = self.stream_type(tty)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"
        if upgrade:
            # the only protocol that there is to upgrade to; never an echo of the header
            head = (
                f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        with contextlib.suppress(ConnectionResetError):
            await raw.write(head.encode())
        return raw


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
