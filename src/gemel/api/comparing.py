"""Routes of the choice between the two runtimes."""

from __future__ import annotations

from aiohttp import web

from gemel.api.call import Call
from gemel.api.respond import json_response
from gemel.api.routing import Router
from gemel.model.comparison import Wanted
from gemel.model.docker import CreateRequest


async def compare(call: Call) -> web.StreamResponse:
    """POST /gemel/compare: runs a service both ways; JSON lines, the report last"""
    wanted = await call.decode(Wanted)
    return await call.send_json_lines(call.engine.comparing.compare(wanted))


async def reports(call: Call) -> web.StreamResponse:
    """GET /gemel/comparisons: the last report of each service"""
    return json_response(await call.engine.comparing.reports())


async def choose(call: Call) -> web.StreamResponse:
    """POST /gemel/choose: what ``runtime: auto`` would be for a container"""
    return json_response(await call.engine.comparing.preview(await call.decode(CreateRequest)))


async def explain(call: Call) -> web.StreamResponse:
    """GET /gemel/containers/{id}/choice: which runtime it has and why"""
    return json_response(await call.engine.comparing.explain(call.args["id"]))


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    for method, pattern, handler in (
        ("POST", "/gemel/compare", compare),
        ("GET", "/gemel/comparisons", reports),
        ("POST", "/gemel/choose", choose),
        ("GET", "/gemel/containers/{id}/choice", explain),
    ):
        router.add(method, pattern, handler)
