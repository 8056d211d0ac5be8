"""Routes of the dashboard's process."""

from __future__ import annotations

from aiohttp import web

from gemel.api.call import Call
from gemel.api.respond import json_response
from gemel.api.routing import Router


async def state(call: Call) -> web.StreamResponse:
    """GET /gemel/dashboard: whether it runs, and where"""
    return json_response(call.engine.dashboard.state())


async def start(call: Call) -> web.StreamResponse:
    """POST /gemel/dashboard: starts it; an address that lets one browser in"""
    port = call.query.number("port", 0) or 0
    return json_response(await call.engine.dashboard.start(port))


async def stop(call: Call) -> web.StreamResponse:
    """DELETE /gemel/dashboard: ends it"""
    return json_response({"Stopped": await call.engine.dashboard.stop()})


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("GET", "/gemel/dashboard", state)
    router.add("POST", "/gemel/dashboard", start)
    router.add("DELETE", "/gemel/dashboard", stop)
