"""Routes of what services say to each other."""

from __future__ import annotations

from aiohttp import web

from gemel.api.call import Call
from gemel.api.query import Query
from gemel.api.respond import close_iterator, empty, json_line, json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput
from gemel.model.faults import FaultRequest
from gemel.observe.capture.records import BODIES
from gemel.observe.capture.records import Query as Wanted

METRICS = "text/plain; version=0.0.4; charset=utf-8"
LINES = "application/x-ndjson"


def _wanted(query: Query) -> Wanted:
    """The parameters of GET /gemel/traffic. Raises InvalidInput."""
    try:
        slower = float(query.text("slower", "0") or 0)
    except ValueError:
        slower = -1.0
    if not 0 <= slower < 1e9:
        raise InvalidInput("slower is a number of seconds")
    return Wanted(
        follow=query.flag("follow"),
        tail=query.number("tail", 0) or 0,
        full=query.flag("full"),
        source=query.text("from"),
        target=query.text("to"),
        status=query.text("status"),
        slower=slower,
        protocol=query.text("protocol"),
        path=query.text("path"),
        project=query.text("project"),
        either=query.text("of"),
        bodies=min(max(query.number("bodies", 0) or 0, 0), BODIES),
    )


async def traffic(call: Call) -> web.StreamResponse:
    """GET /gemel/traffic: exchanges, a JSON object a line"""
    wanted = _wanted(call.query)
    begun = await call.engine.observing.start()  # a failure becomes a status
    found = call.engine.observing.lines(wanted)
    try:
        # the headers go at once: clients take them as the sign that they listen
        response = await call.begin(LINES)
        if begun:
            await response.write(json_line({"recording": "begins now"}))
        async for line in found:
            await response.write(line)
        return response
    finally:
        await close_iterator(found)


async def exchange(call: Call) -> web.StreamResponse:
    """GET /gemel/traffic/{id}: one exchange whole"""
    return json_response(await call.engine.observing.show(call.args["id"]))


async def start(call: Call) -> web.StreamResponse:
    """POST /gemel/traffic: records from now on"""
    return json_response({"Started": await call.engine.observing.start()})


async def stop(call: Call) -> web.StreamResponse:
    """DELETE /gemel/traffic: ends the recording"""
    await call.engine.observing.stop()
    return empty()


async def why(call: Call) -> web.StreamResponse:
    """GET /gemel/containers/{id}/why: what explains its state"""
    return json_response(await call.engine.reports.why(call.args["id"]))


async def metrics(call: Call) -> web.StreamResponse:
    """GET /gemel/metrics: Prometheus' text format"""
    text = await call.engine.observing.metrics()
    return web.Response(body=text.encode(), headers={"Content-Type": METRICS})


async def faults(call: Call) -> web.StreamResponse:
    """GET /gemel/faults"""
    return json_response(await call.engine.faults.list())


async def add_fault(call: Call) -> web.StreamResponse:
    """POST /gemel/faults: a fault between two services begins"""
    return json_response(await call.engine.faults.add(await call.decode(FaultRequest)), status=201)


async def clear_faults(call: Call) -> web.StreamResponse:
    """DELETE /gemel/faults: one (id) or all end"""
    return json_response(await call.engine.faults.clear(call.query.number("id")))


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    for method, pattern, handler in (
        ("GET", "/gemel/traffic", traffic),
        ("POST", "/gemel/traffic", start),
        ("DELETE", "/gemel/traffic", stop),
        ("GET", "/gemel/traffic/{id}", exchange),
        ("GET", "/gemel/containers/{id}/why", why),
        ("GET", "/gemel/metrics", metrics),
        ("GET", "/gemel/faults", faults),
        ("POST", "/gemel/faults", add_fault),
        ("DELETE", "/gemel/faults", clear_faults),
    ):
        router.add(method, pattern, handler)
