"""Routes of debug sessions and crash reports."""

from __future__ import annotations

from aiohttp import web

from gemel.api import decode
from gemel.api.call import Call
from gemel.api.respond import close_iterator, empty, json_response
from gemel.api.routing import Router
from gemel.api.streams import parse_detach_keys
from gemel.model.docker import DebugCreate


async def prepare(call: Call) -> web.StreamResponse:
    """POST /gemel/debug/toolbox: makes the toolbox if it is missing"""
    source = call.engine.debugging.prepare(call.query.text("image"))
    return await call.send_json_lines(source)


async def create(call: Call) -> web.StreamResponse:
    """POST /gemel/containers/{id}/debug: an exec of a program of the toolbox"""
    request = await call.decode(DebugCreate)
    parse_detach_keys(request.detach_keys)
    made = await call.engine.execs.create_debug(call.args["id"], request)
    return json_response({"Id": made}, status=201)


async def start(call: Call) -> web.StreamResponse:
    """POST /gemel/containers/{id}/start-debug: a start for a debugger, this once"""
    body = await call.decode_object()
    halted = decode.field(body, "Halted", bool, False)
    env = decode.field(body, "Env", list[str], [])
    await call.engine.debugging.start(call.args["id"], halted, env)
    return empty()


async def reports(call: Call) -> web.StreamResponse:
    """GET /gemel/reports"""
    return json_response(await call.engine.reports.list())


async def report(call: Call) -> web.StreamResponse:
    """GET /gemel/reports/{id}: one report whole"""
    return json_response(await call.engine.reports.show(call.args["id"]))


async def archive(call: Call) -> web.StreamResponse:
    """GET /gemel/reports/{id}/archive: one report as a zip"""
    pieces = await call.engine.reports.archive(call.args["id"])
    try:
        response = await call.begin("application/zip")
        async for piece in pieces:
            await response.write(piece)
        return response
    finally:
        await close_iterator(pieces)


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("POST", "/gemel/debug/toolbox", prepare)
    router.add("GET", "/gemel/reports", reports)
    router.add("GET", "/gemel/reports/{id}", report)
    router.add("GET", "/gemel/reports/{id}/archive", archive)
    router.add("POST", "/gemel/containers/{id}/start-debug", start)
    router.add("POST", "/gemel/containers/{id}/debug", create)
