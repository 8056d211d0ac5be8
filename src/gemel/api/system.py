"""Routes of the engine as a whole, those of Docker that are off here, and gemel's own."""

from __future__ import annotations

from aiohttp import web

from gemel.api.call import Call, Handler
from gemel.api.respond import JSON, close_iterator, empty, json_line, json_response
from gemel.api.routing import MAX_VERSION_TEXT, MIN_VERSION_TEXT, Router
from gemel.errors import InvalidInput, NotFound, Unavailable, Unsupported

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
_PING_HEADERS = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


async def ping(call: Call) -> web.StreamResponse:
    """GET and HEAD /_ping"""
    text = None if call.request.method == "HEAD" else "OK"
    return web.Response(
        text=text, content_type="text/plain", charset="utf-8", headers=_PING_HEADERS
    )


async def options(call: Call) -> web.StreamResponse:
    """OPTIONS of anything"""
    return empty(200)


async def info(call: Call) -> web.StreamResponse:
    """GET /info"""
    return json_response(await call.engine.system.info())


async def version(call: Call) -> web.StreamResponse:
    """GET /version, GET /gemel/version"""
    found = await call.engine.system.version()
    return json_response(
        {**found, "ApiVersion": MAX_VERSION_TEXT, "MinAPIVersion": MIN_VERSION_TEXT}
    )


async def df(call: Call) -> web.StreamResponse:
    """GET /system/df"""
    found = await call.engine.system.df()
    kinds = call.query.texts("type")
    if not kinds:
        return json_response(found)
    keys = {
        "container": ("Containers",),
        "image": ("Images", "LayersSize"),
        "volume": ("Volumes",),
        "build-cache": ("BuildCache", "BuilderSize"),
    }
    unknown = [kind for kind in kinds if kind not in keys]
    if unknown:
        raise InvalidInput(f"unknown object type: {unknown[0][:60]}")
    wanted = {key for kind in kinds for key in keys[kind]}
    return json_response({key: value for key, value in found.items() if key in wanted})


async def events(call: Call) -> web.StreamResponse:
    """GET /events"""
    query = call.query
    since, until = query.moment("since"), query.moment("until")
    if until and since > until:
        raise InvalidInput("`since` time must be before `until` time")
    found = await call.engine.system.events(since, until, query.filters())
    try:
        # the headers go at once: clients take them as the sign that they listen
        response = await call.begin(JSON)
        async for event in found:
            await response.write(json_line(event))
        return response
    finally:
        await close_iterator(found)


async def auth(call: Call) -> web.StreamResponse:
    """POST /auth"""
    credentials = await call.decode_object()
    return json_response(await call.engine.system.auth(credentials))


async def not_a_manager(call: Call) -> web.StreamResponse:
    """Everything of swarm"""
    raise Unavailable(_NO_SWARM)


async def no_plugins(call: Call) -> web.StreamResponse:
    """GET /plugins"""
    return json_response([])


async def no_plugin(call: Call) -> web.StreamResponse:
    """Everything about one plugin"""
    name = call.args.get("name", "")
    if call.request.method == "GET" and name != "privileges":
        raise NotFound(f'plugin "{name.removesuffix("/json")[:100]}" not found')
    raise Unsupported("plugins are not supported")


async def no_session(call: Call) -> web.StreamResponse:
    """POST /session and /grpc: BuildKit's; clients then use the classic builder"""
    raise NotFound("page not found")


async def doctor(call: Call) -> web.StreamResponse:
    """GET /gemel/doctor"""
    return json_response(await call.engine.system.doctor())


async def bootstrap(call: Call) -> web.StreamResponse:
    """POST /gemel/images/bootstrap"""
    query = call.query
    ref = query.text("ref")
    if not ref:
        raise InvalidInput("the parameter ref is missing")
    packages = [
        name for text in query.texts("packages") for name in text.replace(",", " ").split() if name
    ]
    return await call.send_json_lines(
        call.engine.images.bootstrap(ref, query.text("suite"), packages)
    )


async def shutdown(call: Call) -> web.StreamResponse:
    """POST /gemel/shutdown: the engine stops after this answer"""
    await call.engine.system.shutdown()
    call.on_shutdown()
    response = json_response({"Stopping": True}, status=202)
    response.force_close()
    return response


def _add_swarm(router: Router) -> None:
    handler: Handler = not_a_manager
    for method, pattern in (
        ("GET", "/swarm"),
        ("GET", "/swarm/unlockkey"),
        ("POST", "/swarm/init"),
        ("POST", "/swarm/join"),
        ("POST", "/swarm/leave"),
        ("POST", "/swarm/update"),
        ("POST", "/swarm/unlock"),
        ("GET", "/nodes"),
        ("GET", "/nodes/{id}"),
        ("DELETE", "/nodes/{id}"),
        ("POST", "/nodes/{id}/update"),
        ("GET", "/tasks"),
        ("GET", "/tasks/{id}"),
        ("GET", "/tasks/{id}/logs"),
    ):
        router.add(method, pattern, handler)
    for kind in ("services", "secrets", "configs"):
        router.add("GET", f"/{kind}", handler)
        router.add("GET", f"/{kind}/{{id}}", handler)
        router.add("POST", f"/{kind}/create", handler)
        router.add("POST", f"/{kind}/{{id}}/update", handler)
        router.add("DELETE", f"/{kind}/{{id}}", handler)
    router.add("GET", "/services/{id}/logs", handler)


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    for method, pattern, handler in (
        ("GET", "/_ping", ping),
        ("HEAD", "/_ping", ping),
        ("GET", "/info", info),
        ("GET", "/version", version),
        ("GET", "/system/df", df),
        ("GET", "/events", events),
        ("POST", "/auth", auth),
        ("GET", "/plugins", no_plugins),
        ("GET", "/plugins/{name:*}", no_plugin),
        ("POST", "/plugins/{name:*}", no_plugin),
        ("DELETE", "/plugins/{name:*}", no_plugin),
        ("POST", "/session", no_session),
        ("POST", "/grpc", no_session),
        ("GET", "/gemel/version", version),
        ("GET", "/gemel/doctor", doctor),
        ("POST", "/gemel/images/bootstrap", bootstrap),
        ("POST", "/gemel/shutdown", shutdown),
    ):
        router.add(method, pattern, handler)
    _add_swarm(router)
