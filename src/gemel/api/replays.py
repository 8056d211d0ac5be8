"""Routes of recorded answers in the place of services."""

from __future__ import annotations

import msgspec
from aiohttp import web

from gemel.api.call import Call
from gemel.api.respond import empty, json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput
from gemel.model.replay import ReplayRequest

#: Bytes of a recording: its bodies in base64.
LIMIT = 384 << 20


async def begin(call: Call) -> web.StreamResponse:
    """POST /gemel/replays: answers in the place of services from now on"""
    # with the bodies of a recording, far larger than other requests
    try:
        wanted = msgspec.json.decode(await call.json_body(limit=LIMIT), type=ReplayRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput("the recording is not understood", details=str(error)) from error
    made = await call.engine.replays.begin(wanted)
    return json_response(made, status=201)


async def shown(call: Call) -> web.StreamResponse:
    """GET /gemel/replays: what is answered now"""
    return json_response(call.engine.replays.shown())


async def end(call: Call) -> web.StreamResponse:
    """DELETE /gemel/replays: no more"""
    await call.engine.replays.end()
    return empty()


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("POST", "/gemel/replays", begin)
    router.add("GET", "/gemel/replays", shown)
    router.add("DELETE", "/gemel/replays", end)
