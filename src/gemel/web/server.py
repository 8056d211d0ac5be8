"""The server of the page: who is let in, the files, what is asked and done, what is live."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import WSMsgType, web

from gemel import __version__
from gemel.errors import GemelError, InvalidInput, NotFound
from gemel.web import details, terminal
from gemel.web.assets import Asset
from gemel.web.calls import Calls
from gemel.web.gate import Gate, host_is_ours, origin_is_ours
from gemel.web.hub import Box, Hub
from gemel.web.logfeed import LogFeed
from gemel.web.stage import Stage
from gemel.web.upstream import Answered, Upstream, path

log = logging.getLogger("gemel.web")

#: Pages at once; seconds that a page may take to read a message; seconds between messages.
TABS, PATIENCE, BEAT = 128, 30.0, 0.1
_ACTIONS = frozenset(("start", "stop", "restart", "pause", "unpause"))

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws://{host}; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
#: xterm.js writes a style sheet for the size of its letters; that page has nothing but it.
_TERMINAL_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self' ws://{host}; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
_REFUSED = """<!doctype html><meta charset="utf-8"><title>gemel</title>
<link rel="icon" href="data:,"><meta name="color-scheme" content="light dark">
<h1>{title}</h1><p>{text}</p><p>Run <code>gemel dashboard</code> to get a new address.</p>
"""
_WELCOME = """<!doctype html><meta charset="utf-8"><title>gemel</title>
<link rel="icon" href="data:,"><meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="0;url=/">
<p><a href="/">To the dashboard</a></p>
"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Everything that one dashboard serves."""

    def __init__(self, upstream: Upstream, gate: Gate, assets: dict[str, Asset]) -> None:
        self.upstream, self.gate, self.assets = upstream, gate, assets
        self.hub = Hub()
        self.stage = Stage(upstream, self.hub)
        self.logs = LogFeed(upstream, self.stage, self.hub)
        self.calls = Calls(upstream, self.hub)
        self._terminals = 0
        self._cookie = "gemel"

    def name_cookie(self, port: int) -> None:
        """Cookies know no ports: several dashboards of one machine need several names."""
        self._cookie = f"gemel-{port}"

    def application(self) -> web.Application:
        """The routes."""
        made = web.Application(middlewares=[self._middleware], client_max_size=64 << 10)
        made.add_routes(
            [
                web.get("/login/{code}", self.login),
                web.get("/api/live", self.live),
                web.get("/api/terminal/{id}", self.terminal),
                web.get("/api/instances/{id}", self.instance),
                web.post("/api/instances/{id}/{action}", self.act),
                web.get("/api/calls/{id}", self.call),
                web.get("/api/traces", self.traces),
                web.get("/api/traces/{id}", self.trace),
                web.get("/api/comparisons", self.comparisons),
                web.get("/api/faults", self.faults),
                web.post("/api/faults", self.add_fault),
                web.delete("/api/faults", self.clear_fault),
                web.get("/{path:.*}", self.file),
            ]
        )
        return made

    async def run(self) -> None:
        """What goes on beside the answers; ends by being cancelled, or when a part fails."""
        async with asyncio.TaskGroup() as group:
            for part in (self.stage, self.logs, self.calls):
                group.create_task(part.run(), name=type(part).__name__)

    # --- who is let in ------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        try:
            response = self._refusal(request, host) or await handler(request)
        except GemelError as error:
            response = _failed(error)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=error.reason)
        if not response.prepared:
            _protect(response, host, terminal=request.path == "/terminal.html")
        return response

    def _refusal(self, request: web.Request, host: str) -> web.Response | None:
        if not host_is_ours(host):
            return web.Response(status=403, text="this name is not the dashboard's")
        origin = request.headers.get("Origin")
        acts = request.method not in ("GET", "HEAD") or "Upgrade" in request.headers
        if not origin_is_ours(origin, host, needed=acts):
            return web.Response(status=403, text="requests of other pages are not answered")
        if request.path.startswith("/login/"):
            return None
        if not self.gate.knows(request.cookies.get(self._cookie, "")):
            text = "This browser has not been let in, or its session has ended."
            return refused("You are not logged in", text)
        return None

    async def login(self, request: web.Request) -> web.StreamResponse:
        """GET /login/CODE: a code for a session"""
        session = self.gate.redeem(request.match_info["code"][:200])
        if not session:
            if self.gate.knows(request.cookies.get(self._cookie, "")):
                return web.Response(text=_WELCOME, content_type="text/html")
            text = "This address was used already, is too old, or was never good."
            return refused("This address lets nobody in", text)
        # a page, not a redirect: a Strict cookie is not sent on the way from another site
        response = web.Response(text=_WELCOME, content_type="text/html")
        response.set_cookie(
            self._cookie, session, httponly=True, samesite="Strict", path="/", max_age=7 * 86400
        )
        return response

    # --- files --------------------------------------------------------------------------

    async def file(self, request: web.Request) -> web.StreamResponse:
        """GET of a file of the page"""
        asset = self.assets.get(request.path.lstrip("/") or "index.html")
        if asset is None:
            return web.Response(status=404, text="there is no such page")
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Content-Type": asset.kind}
        if request.headers.get("If-None-Match") == asset.tag:
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=asset.packed, headers=headers)
        return web.Response(body=asset.plain, headers=headers)

    # --- what is asked and done -----------------------------------------------------------

    async def instance(self, request: web.Request) -> web.StreamResponse:
        """GET /api/instances/ID: inspect, secrets hidden, and why it is as it is"""
        id = request.match_info["id"]
        whole, why = await asyncio.gather(
            self.upstream.call("GET", path("containers", id, "json")),
            self.upstream.call("GET", path("gemel", "containers", id, "why")),
        )
        return _json({"inspect": details.masked(whole), "why": why})

    async def act(self, request: web.Request) -> web.StreamResponse:
        """POST /api/instances/ID/ACTION"""
        id, action = request.match_info["id"], request.match_info["action"]
        if action not in _ACTIONS:
            raise NotFound(f"nothing can be done by the name of {action[:40]}")
        await self.upstream.call("POST", path("containers", id, action))
        await self.stage.look()
        return _json({})

    async def call(self, request: web.Request) -> web.StreamResponse:
        """GET /api/calls/ID: one call whole"""
        id = request.match_info["id"]
        return _json(await self.upstream.call("GET", path("gemel", "traffic", id)))

    async def traces(self, request: web.Request) -> web.StreamResponse:
        """GET /api/traces: those of late"""
        wanted = {key: request.query[key] for key in ("tail", "project") if request.query.get(key)}
        return _json(_many(await self.upstream.text("GET", "/gemel/traces", wanted)))

    async def trace(self, request: web.Request) -> web.StreamResponse:
        """GET /api/traces/ID: one whole"""
        id = request.match_info["id"]
        return _json(await self.upstream.call("GET", path("gemel", "traces", id)))

    async def comparisons(self, request: web.Request) -> web.StreamResponse:
        """GET /api/comparisons: what `gemel compare` has measured"""
        return _json(await self.upstream.call("GET", "/gemel/comparisons"))

    async def faults(self, request: web.Request) -> web.StreamResponse:
        """GET /api/faults"""
        return _json(await self.upstream.call("GET", "/gemel/faults"))

    async def add_fault(self, request: web.Request) -> web.StreamResponse:
        """POST /api/faults"""
        try:
            body = msgspec.json.decode(await request.read(), type=dict)
        except msgspec.MsgspecError as error:
            raise InvalidInput("a fault is a JSON object", details=str(error)) from error
        made = await self.upstream.call("POST", "/gemel/faults", body=body)
        await self.calls.publish()
        return _json(made)

    async def clear_fault(self, request: web.Request) -> web.StreamResponse:
        """DELETE /api/faults?id=N"""
        id = request.query.get("id", "")
        done = await self.upstream.call("DELETE", "/gemel/faults", {"id": id} if id else None)
        await self.calls.publish()
        return _json(done)

    # --- what is live ---------------------------------------------------------------------

    async def live(self, request: web.Request) -> web.StreamResponse:
        """GET /api/live: a websocket; the page says what it looks at, and gets that"""
        if len(self.hub.boxes) >= TABS:
            return web.Response(status=503, text=f"there are {TABS} pages open already")
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=16 << 10, compress=False)
        await socket.prepare(request)
        box = Box()
        self.hub.boxes.add(box)
        hello = {"t": "hello", "version": __version__, "terminal": "vendor/xterm.js" in self.assets}
        box.put("hello", msgspec.json.encode(hello))
        sending = asyncio.create_task(_send(socket, box, request.transport), name="page")
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._choose(box, message.data)
        finally:
            self.hub.boxes.discard(box)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return socket

    def _choose(self, box: Box, text: str) -> None:
        """``{"look": ["services"]}``: what the page shows now."""
        try:
            wanted = msgspec.json.decode(text, type=dict[str, list[str]])
        except msgspec.MsgspecError:
            return
        new = box.choose(wanted.get("look", []))
        if "services" in new:
            box.put("history", self.stage.history())
            box.put("services", self.stage.message())
        if "map" in new:
            box.put("map", self.calls.message())
        if "calls" in new:
            box.add("calls", self.calls.recent())
        if "logs" in new:
            box.add("logs", self.logs.recent())
        self.hub.changed.set()

    async def terminal(self, request: web.Request) -> web.StreamResponse:
        """GET /api/terminal/ID: a websocket; binary frames are the terminal's bytes"""
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=1 << 20, compress=False)
        with self._one_terminal():
            await socket.prepare(request)
            await terminal.run(self.upstream, request.match_info["id"], socket, request.query)
            with contextlib.suppress(ConnectionError, TimeoutError):
                await socket.close()
        return socket

    @contextlib.contextmanager
    def _one_terminal(self) -> Iterator[None]:
        if self._terminals >= terminal.MOST:
            raise InvalidInput(f"there are {terminal.MOST} terminals open already")
        self._terminals += 1
        try:
            yield
        finally:
            self._terminals -= 1


async def _send(
    socket: web.WebSocketResponse, box: Box, transport: asyncio.Transport | None
) -> None:
    """Sends what is in the box; a page that does not read is let go."""
    try:
        while True:
            await box.filled.wait()
            begun = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                for message in box.take():
                    await socket.send_frame(message, WSMsgType.TEXT)
            # so that many small things go in one message
            await asyncio.sleep(max(0.01, BEAT - (time.monotonic() - begun)))
    except TimeoutError:
        log.info("a page does not read and is let go")
        if transport is not None:
            transport.abort()
    except ConnectionError:
        pass


def _protect(response: web.StreamResponse, host: str, *, terminal: bool) -> None:
    policy = _TERMINAL_POLICY if terminal else _POLICY
    response.headers.update(
        {
            "Content-Security-Policy": policy.format(host=host if host_is_ours(host) else ""),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
    )
    response.headers.setdefault("Cache-Control", "no-store")


def refused(title: str, text: str) -> web.Response:
    """401, as a page that says what to do."""
    page = _REFUSED.format(title=title, text=text)
    return web.Response(status=401, text=page, content_type="text/html")


def _failed(error: GemelError) -> web.Response:
    statuses = {NotFound: 404, InvalidInput: 400}
    status = error.status if isinstance(error, Answered) else statuses.get(type(error), 502)
    told = {"brief": error.brief, "details": error.details, "resolution": error.resolution}
    return web.Response(
        status=status, body=msgspec.json.encode(told), content_type="application/json"
    )


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _many(data: bytes) -> list[object]:
    """JSON that is an array, or one object a line."""
    try:
        if data.lstrip().startswith(b"["):
            return list(msgspec.json.decode(data))
        return [msgspec.json.decode(line) for line in data.splitlines() if line.strip()]
    except (msgspec.MsgspecError, TypeError) as error:
        raise InvalidInput("the engine's answer cannot be read", details=str(error)) from error
