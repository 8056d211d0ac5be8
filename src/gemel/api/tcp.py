"""The API over TCP: off unless asked for, and then only for those who can prove who they are.

By TLS client certificates, or by a token (``Authorization: Bearer …``); a token without TLS
only on this machine's loopback. A browser must not be led here by a page of somebody else:
``Host`` must be an address or a name of this machine, ``Origin`` must be its own.

TLS is ended here and not by asyncio's own transport, which takes a client's close_notify
for the end of both directions: ``docker run -i`` ends its input that way and still reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import platform
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from gemel.errors import Failed, InvalidInput

log = logging.getLogger("gemel.api")

_HANDSHAKE = 15.0
_PIECE = 64 << 10
_MIN_TOKEN = 16


class Listen(NamedTuple):
    """Where to listen, and whom to answer. Paths are those of PEM files."""

    address: str
    port: int
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    token: str = ""
    hosts: frozenset[str] = frozenset()
    """Further names that clients may call this machine by."""


def parse(url: str) -> tuple[str, int]:
    """Address and port of ``tcp://ADDRESS:PORT``. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        port = parts.port
        if parts.scheme != "tcp" or not parts.hostname or not port or parts.path not in ("", "/"):
            raise ValueError("not of the form tcp://ADDRESS:PORT")
        return str(ipaddress.ip_address(parts.hostname)), port
    except ValueError as error:
        raise InvalidInput(
            f"cannot listen on {url!r}",
            details=str(error),
            resolution="write tcp://ADDRESS:PORT, such as tcp://127.0.0.1:2376",
        ) from error


def checked(listen: Listen) -> Listen:
    """The same, if it lets nobody in who has not proved who they are. Raises InvalidInput."""
    if bool(listen.cert) != bool(listen.key) or (listen.ca and not listen.cert):
        raise InvalidInput("--tls-cert, --tls-key and --tls-ca belong together")
    if not listen.ca and not listen.token:
        raise InvalidInput(
            "a TCP listener needs TLS client certificates or a token",
            resolution="give --tls-cert, --tls-key and --tls-ca, or --token-file",
        )
    if listen.token and len(listen.token) < _MIN_TOKEN:
        raise InvalidInput(f"the token is too short: {_MIN_TOKEN} characters at least")
    if not listen.cert and not ipaddress.ip_address(listen.address).is_loopback:
        raise InvalidInput(
            "a token without TLS would cross the network in the clear",
            resolution="give --tls-cert and --tls-key, or listen on 127.0.0.1",
        )
    return listen


class Gate:
    """Decides about each request of a TCP listener."""

    def __init__(self, listen: Listen) -> None:
        self._token = listen.token.encode()
        self._port = listen.port
        self._names = {"localhost", platform.node().lower(), *map(str.lower, listen.hosts)} - {""}

    def refusal(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a request that is not let in."""
        host = request.headers.get("Host", "")
        if not self._known(host):
            return _refused(403, "this name is none of this machine's")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _refused(403, "requests of other origins are not answered")
        if self._token:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            good = scheme.lower() == "bearer"
            if not hmac.compare_digest(given.strip().encode(), self._token) or not good:
                response = _refused(401, "a token is needed: Authorization: Bearer TOKEN")
                response.headers["WWW-Authenticate"] = "Bearer"
                return response
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.lower() in self._names:
            return True
        try:  # no page can make a browser send an address that is not the one it connects to
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _refused(status: int, message: str) -> web.Response:
    response = web.json_response({"message": message}, status=status)
    response.force_close()
    return response


def context(listen: Listen) -> ssl.SSLContext | None:
    """TLS 1.2 or later, with client certificates where there is a CA. Raises InvalidInput."""
    if not listen.cert or not listen.key:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(listen.cert, listen.key)
        if listen.ca:
            made.load_verify_locations(listen.ca)
            made.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput("the certificates cannot be used", details=str(error)) from error
    return made


async def listen_on(
    listen: Listen, make: Callable[[], asyncio.Protocol]
) -> tuple[asyncio.Server, Relays]:
    """Listens; ``make`` gives the protocol for a connection. Raises InvalidInput, Failed."""
    tls = context(listen)
    loop = asyncio.get_running_loop()
    relays = Relays(make, tls)
    try:
        if tls is None:
            server = await loop.create_server(make, listen.address, listen.port)
        else:
            server = await asyncio.start_server(relays.accept, listen.address, listen.port)
    except OSError as error:
        raise Failed(
            f"cannot listen on {listen.address}:{listen.port}", details=str(error)
        ) from error
    return server, relays


class Relays:
    """Connections whose TLS is ended here, each with a socket pair behind it."""

    def __init__(self, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        self._make = make
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None and self._tls is not None
        self._tasks.add(task)
        try:
            outer = _Tls(self._tls, reader, writer)
            async with asyncio.timeout(_HANDSHAKE):
                await outer.handshake()
            await self._carry(outer)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.info("a TLS connection ended: %s", error)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, outer: _Tls) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(self._make, theirs)
        inner_reader, inner = await asyncio.open_connection(sock=ours)

        async def inward() -> None:
            while data := await outer.read():
                inner.write(data)
                await inner.drain()
            with contextlib.suppress(OSError):
                inner.write_eof()

        async def outward() -> None:
            while data := await inner_reader.read(_PIECE):
                await outer.write(data)
            await outer.end()

        tasks = [asyncio.create_task(inward()), asyncio.create_task(outward())]
        try:
            # when the engine has said all, nothing more can come of what the client says
            await tasks[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            inner.close()

    async def close(self) -> None:
        """Ends all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Tls:
    """TLS over a stream, whose two directions end apart from each other."""

    def __init__(
        self, tls: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._in, self._out, server_side=True)
        self._reader, self._writer = reader, writer

    async def _flush(self) -> None:
        if self._out.pending:
            self._writer.write(self._out.read())
        await self._writer.drain()

    async def _more(self) -> None:
        data = await self._reader.read(_PIECE)
        self._in.write(data) if data else self._in.write_eof()

    async def handshake(self) -> None:
        """Raises ssl.SSLError for a client without a good certificate."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
                continue
            finally:
                with contextlib.suppress(OSError):
                    await self._flush()
            return

    async def read(self) -> bytes:
        """What has come; b"" at the client's end."""
        while True:
            try:
                return self._tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        """Sends all of it."""
        self._tls.write(data)
        await self._flush()

    async def end(self) -> None:
        """No more will be sent."""
        with contextlib.suppress(ssl.SSLError, OSError):
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            await self._flush()
            self._writer.write_eof()


def read_token(path: Path) -> str:
    """The token in a file of root's that nobody else can read. Raises InvalidInput."""
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the token in {path}", details=str(error)) from error
    if mode & 0o077:
        raise InvalidInput(f"others can read {path}", resolution=f"chmod 600 {path}")
    return text
