"""/gemel/kernels: the micro VMs' kernels."""

from __future__ import annotations

from aiohttp import web

from gemel.api.call import Call
from gemel.api.respond import json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput


async def listed(call: Call) -> web.StreamResponse:
    """GET /gemel/kernels"""
    return json_response(await call.engine.system.kernels())


async def fetch(call: Call) -> web.StreamResponse:
    """POST /gemel/kernels/fetch"""
    return await call.send_json_lines(call.engine.system.fetch_kernel())


async def build(call: Call) -> web.StreamResponse:
    """POST /gemel/kernels/build"""
    jobs = call.query.number("jobs")
    if jobs is not None and not 1 <= jobs <= 1024:
        raise InvalidInput(f"{jobs} jobs cannot be run at once", resolution="1 to 1024")
    use = call.query.flag("use", True)
    return await call.send_json_lines(call.engine.system.build_kernel(jobs, use))


async def use(call: Call) -> web.StreamResponse:
    """POST /gemel/kernels/use"""
    name = call.query.text("name")
    if not name:
        raise InvalidInput("the parameter name is missing")
    return json_response(await call.engine.system.use_kernel(name))


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("GET", "/gemel/kernels", listed)
    router.add("POST", "/gemel/kernels/fetch", fetch)
    router.add("POST", "/gemel/kernels/build", build)
    router.add("POST", "/gemel/kernels/use", use)
