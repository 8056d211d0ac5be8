"""The server: its socket, and the way from a request to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket as sockets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

import gemel
from gemel.api import (
    artifacts,
    comparing,
    container_streams,
    containers,
    dashboard,
    debugging,
    execs,
    images,
    kernels,
    networks,
    observing,
    replays,
    system,
    tcp,
    tracing,
)
from gemel.api.call import Call, Handler, Lists
from gemel.api.errors import error_response
from gemel.api.hijack import Connection, Hangups
from gemel.api.query import Query, unescape
from gemel.api.respond import json_response
from gemel.api.routing import MAX_VERSION_TEXT, Router, split_version
from gemel.engine.facade import Engine
from gemel.errors import Conflict, Failed, GemelError, InvalidInput

log = logging.getLogger("gemel.api")

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

GROUP = "gemel"
#: Seconds that requests in progress are given when the server closes.
CLOSE_TIMEOUT = 5.0
_BACKLOG = 1024
_PROBE_TIMEOUT = 2.0
_HEADERS = {
    "Api-Version": MAX_VERSION_TEXT,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"gemel/{getattr(gemel, '__version__', '0.1.0')} (linux)",
}


def make_router() -> Router:
    """All routes."""
    router = Router()
    parts = (
        system, containers, container_streams, execs, images, networks, observing, comparing,
        tracing, dashboard, replays,
    )  # fmt: skip
    for part in parts:
        part.add_routes(router)
    kernels.add_routes(router)
    debugging.add_routes(router)
    artifacts.add_routes(router)
    return router


def _nothing() -> None:
    """What a shutdown does beyond the engine's own, if nobody says otherwise."""


class Application:
    """Answers requests with an engine."""

    def __init__(self, engine: Engine, on_shutdown: Callable[[], None]) -> None:
        self._engine = engine
        self._on_shutdown = on_shutdown
        self._router = make_router()
        self._lists = Lists()
        self._hangups = Hangups(asyncio.get_running_loop())

    def close(self) -> None:
        """Lets go of what it watches."""
        self._hangups.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The one handler of the server. Never raises but on broken connections."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        try:
            return await self._answer(request)
        finally:
            connection.end()

    def behind(self, gate: tcp.Gate) -> Handle:
        """The same handler for a listener that does not let everybody in."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return gate.refusal(request) or await self.handle(request)

        return handle

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            handler, call = self._route(request)
            return await handler(call)
        except GemelError as error:
            return self._failed(request, error_response(error))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = Failed(
                "an error inside the engine",
                resolution="the engine's log has the details; please report it",
            )
            return self._failed(request, error_response(failure))

    @staticmethod
    def _failed(request: web.BaseRequest, response: web.Response) -> web.Response:
        if request.writer.output_size > 0:
            # too late for a status: the client must see that the answer is cut off
            raise ConnectionAbortedError("an answer failed in its midst")
        if not request.content.is_eof():
            response.force_close()
        return response

    def _route(self, request: web.BaseRequest) -> tuple[Handler, Call]:
        version, path = split_version(unescape(request.rel_url.raw_path))
        if request.method == "OPTIONS":
            found: tuple[Handler, dict[str, str]] | None = (system.options, {})
        else:
            found = self._router.find(request.method, path)
        handler, args = found or (_not_found, {})
        call = Call(
            request=request,
            engine=self._engine,
            version=version,
            args=args,
            query=Query(request.rel_url.raw_query_string),
            hangups=self._hangups,
            on_shutdown=self._on_shutdown,
            lists=self._lists,
        )
        return handler, call


async def _not_found(call: Call) -> web.StreamResponse:
    return json_response({"message": "page not found"}, status=404)


class _Request(web.BaseRequest):
    """A request all of whose answers, aiohttp's own errors too, carry Docker's headers."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.update(_HEADERS)


class _HTTPServer(web.Server):
    """aiohttp's low-level server with connections that can be taken over."""

    def _make_request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> _Request:
        return _Request(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


class Server:
    """A server that listens. Made by ``serve``."""

    def __init__(
        self,
        application: Application,
        http: _HTTPServer,
        listener: asyncio.Server,
        path: Path,
    ) -> None:
        self._application = application
        self._http = http
        self._listener = listener
        self._path = path
        self._inode = path.stat().st_ino
        self._closed = False
        self._over_tcp: tuple[_HTTPServer, asyncio.Server, tcp.Relays] | None = None

    async def listen(self, where: tcp.Listen) -> None:
        """Answers on TCP too. Raises InvalidInput, Failed."""
        gate = tcp.Gate(tcp.checked(where))
        http = _HTTPServer(self._application.behind(gate), **_options())
        self._over_tcp = (http, *await tcp.listen_on(where, http))
        log.info("answering on tcp://%s:%d", where.address, where.port)

    @property
    def requests(self) -> int:
        """How many requests it has answered."""
        return self._http.requests_count

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Stops listening, ends streams, gives other requests ``timeout`` seconds."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._listener.close()
        servers = [self._http]
        if self._over_tcp is not None:
            http, listener, relays = self._over_tcp
            listener.close()
            servers.append(http)
        for server in servers:
            for connection in server.connections:
                if isinstance(connection, Connection):
                    connection.end_stream()
        for server in servers:
            await server.shutdown(timeout)
        if self._over_tcp is not None:
            await relays.close()
        self._application.close()


def _is_alive(path: Path) -> bool:
    """Whether somebody answers on the socket at ``path``."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            log.warning("the socket %s does not answer: %s", path, error)
            return isinstance(error, TimeoutError | BlockingIOError)
        return True


def _group() -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return 0


def bind(path: Path) -> sockets.socket:
    """A listening socket at ``path``, 0660 root:gemel, in the place of a dead engine's.

    Raises Conflict if an engine answers there, InvalidInput if the path is too
    long, Failed if the kernel refuses.
    """
    if len(os.fsencode(path)) > 107:
        raise InvalidInput(
            f"the path of the socket is too long: {path}",
            resolution="choose a shorter --run-dir",
        )
    if path.is_socket() and _is_alive(path):
        raise Conflict(
            f"an engine answers on {path} already",
            resolution="use it, stop it, or choose another --run-dir",
        )
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
    try:
        if path.is_socket():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        listener.bind(str(path))
        # nobody can connect before listen(), so the mode is right from the start
        path.chmod(0o660)
        if os.geteuid() == 0:
            os.chown(path, 0, _group())
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Failed(f"cannot listen on {path}", details=str(error)) from error
    return listener


def _options() -> dict[str, Any]:
    return {
        "access_log": None,
        "logger": logging.getLogger("gemel.api.http"),
        "auto_decompress": False,
        "tcp_keepalive": False,
        "max_line_size": 64 << 10,
        "max_field_size": 64 << 10,
        "lingering_time": 2.0,
    }


async def serve(
    engine: Engine, socket: Path, *, on_shutdown: Callable[[], None] = _nothing
) -> Server:
    """Answers the API on ``socket`` until ``Server.close``.

    on_shutdown is called when a client has asked the engine to stop. Raises
    Conflict, InvalidInput, Failed (see ``bind``).
    """
    listening = bind(socket)
    application = Application(engine, on_shutdown)
    loop = asyncio.get_running_loop()
    http = _HTTPServer(application.handle, **_options())
    listener = await loop.create_unix_server(http, sock=listening)
    return Server(application, http, listener, socket)
