"""A connection taken over from HTTP: raw bytes both ways, with flow control.

Docker's attach and exec answer ``101 UPGRADED`` (or ``200 OK`` to a client that
asked for no upgrade) and then speak no HTTP any more. ``Connection`` is
aiohttp's protocol with the two things that this needs: bytes that come right
behind such a request are kept from the HTTP parser, and the transport can be
handed to ``RawConnection``.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

#: Bytes of a client's input that are held for a program that does not read them.
READ_LIMIT = 256 << 10
#: Bytes of a request's head and body that are looked at for what follows them.
HEAD_LIMIT = 64 << 10
BODY_LIMIT = 1 << 20


def _starts_stream(data: bytes) -> bool:
    """Whether a request that begins with ``data`` may turn into a raw stream."""
    if not data.startswith(b"POST "):
        return False
    line = data[: data.find(b"\r\n")]
    return b"/attach" in line or (b"/exec/" in line and b"/start" in line)


def _body_length(head: bytes) -> int | None:
    """Content-Length of a request's head; 0 without one, None if the body is chunked."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"transfer-encoding":
            return None
        if name.strip().lower() == b"content-length":
            text = value.strip()
            return int(text) if text.isdigit() and len(text) < 12 else None
    return 0


class Connection(RequestHandler):
    """One client's connection while it speaks HTTP."""

    __slots__ = ("_busy", "_eof", "_head", "_raw", "_taken", "cancel_when_lost")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.cancel_when_lost = False
        """Set by a handler that streams: its work ends when its reader goes."""
        self._busy = False
        self._taken = False
        self._head = b""
        self._raw: bytearray | None = None
        self._eof = False

    def data_received(self, data: bytes) -> None:
        """Feeds the HTTP parser, up to the end of a request that may be taken over."""
        if self._raw is not None:
            self._raw += data
            if len(self._raw) > READ_LIMIT and self.transport is not None:
                self.transport.pause_reading()
            return
        if not data or self._busy or not (self._head or _starts_stream(data)):
            super().data_received(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= HEAD_LIMIT:
            return
        length = _body_length(self._head[:end]) if end >= 0 else None
        if length is not None and length <= BODY_LIMIT:
            total = end + 4 + length
            if len(self._head) < total:
                return
            self._raw = bytearray(self._head[total:])
            request, self._head = self._head[:total], b""
        else:
            request, self._head = self._head, b""
        super().data_received(request)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A half-close behind a request that may be taken over ends only its input."""
        self._eof = True
        return True if self._raw is not None else None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancels the handler if it asked for that."""
        task = self._task_handler if self.cancel_when_lost else None
        super().connection_lost(exc)
        if task is not None:
            task.cancel()

    def end_stream(self) -> None:
        """Cancels a handler that streams, since it would not end by itself."""
        if self._task_handler is not None and (self.cancel_when_lost or self._taken):
            self._task_handler.cancel()

    def begin(self) -> None:
        """A request's handler begins: what comes now is not the start of a first request."""
        self._busy = True

    def end(self) -> None:
        """A request's handler has ended: bytes that were held back are HTTP after all."""
        self._busy = False
        self.cancel_when_lost = False
        raw, self._raw = self._raw, None
        if raw is None or self.transport is None:
            return
        if self._eof:
            self.close()
            return
        with contextlib.suppress(RuntimeError):
            self.transport.resume_reading()
        if raw:
            self.data_received(bytes(raw))

    def take_over(self, hangups: Hangups) -> RawConnection:
        """Hands the transport to a RawConnection. Raises ConnectionResetError if it is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        raw, self._raw = self._raw, None
        self._taken = True
        connection = RawConnection(self, transport, bytes(raw or b""), self._eof, hangups)
        transport.set_protocol(connection)
        with contextlib.suppress(RuntimeError):
            transport.resume_reading()
        connection.begin()
        return connection


class Taken(web.StreamResponse):
    """What a handler gives back whose connection speaks HTTP no more."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Nothing is written."""
        self._keep_alive = False

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is written."""


class Hangups:
    """Tells when a peer has closed its socket whole, even while nothing is read from it.

    A half-closed stream gives no further event to asyncio; an epoll that asks
    for nothing still reports EPOLLHUP.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, RawConnection] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, connection: RawConnection) -> None:
        """Begins to watch."""
        self._watched[fd] = connection
        self._epoll.register(fd, 0)

    def discard(self, fd: int, connection: RawConnection) -> None:
        """Ends the watch; must come before the descriptor is closed."""
        if self._watched.get(fd) is connection:
            del self._watched[fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            connection = self._watched.get(fd)
            if connection is not None:
                self.discard(fd, connection)
                connection.hang_up()

    def close(self) -> None:
        """Ends all watches."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()


class RawConnection(asyncio.Protocol):
    """The bytes of a connection that was taken over."""

    def __init__(
        self,
        http: Connection,
        transport: asyncio.Transport,
        backlog: bytes,
        eof: bool,
        hangups: Hangups,
    ) -> None:
        self._http = http
        self._transport = transport
        self._buffer = bytearray(backlog)
        self._eof = eof
        self._hangups = hangups
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._lost = False
        self._discard = False
        self.gone = asyncio.Event()
        """Set when the client has closed its end whole."""

    def begin(self) -> None:
        """After it became the transport's protocol."""
        if self._buffer or self._eof:
            self._readable.set()
        self._hangups.add(self._fd, self)

    # asyncio's side

    def data_received(self, data: bytes) -> None:
        if self._discard:
            return
        self._buffer += data
        self._readable.set()
        if len(self._buffer) > READ_LIMIT and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._readable.set()
        return True  # output goes on

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._hangups.discard(self._fd, self)
        self._lost = self._eof = True
        self._readable.set()
        self._writable.set()
        self.gone.set()
        self._http.connection_lost(exc)

    def hang_up(self) -> None:
        """The client has closed its socket; what it sent before can still be read."""
        self.gone.set()

    # the session's side

    async def read(self) -> bytes:
        """What has come; b"" at the end of the client's input."""
        while not self._buffer:
            if self._eof:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._paused and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Sends, and waits while the client does not read. ConnectionResetError if it is gone."""
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writable.wait()
        if self._lost:
            raise ConnectionResetError("the client has gone")

    async def finish(self, linger: float = 2.0) -> None:
        """Ends the output, and closes when the client does or ``linger`` seconds later.

        Closing at once with unread input would give the client ECONNRESET
        instead of the end of the stream.
        """
        if self._lost:
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._discard = True
            self._buffer.clear()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            await self._flushed()
            self._transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(linger):
                    while not self._eof:
                        self._readable.clear()
                        await self._readable.wait()
        self.close()

    async def _flushed(self) -> None:
        """Until the client has taken everything, or is gone."""
        self._transport.set_write_buffer_limits(high=0)
        if self._transport.get_write_buffer_size() > 0 and not self._lost:
            self._writable.clear()
            await self._writable.wait()

    def close(self) -> None:
        """Closes at once."""
        self._hangups.discard(self._fd, self)
        if not self._lost:
            self._transport.abort() if self.gone.is_set() else self._transport.close()
