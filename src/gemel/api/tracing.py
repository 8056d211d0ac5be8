"""Routes of traces."""

from __future__ import annotations

from aiohttp import web

from gemel.api.call import Call
from gemel.api.query import Query
from gemel.api.respond import close_iterator, json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput
from gemel.observe.tracing.records import Ask

LINES = "application/x-ndjson"


def _number(query: Query, name: str) -> float:
    """A number of seconds, 0 without one. Raises InvalidInput."""
    try:
        value = float(query.text(name, "0") or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e11:
        raise InvalidInput(f"{name} is a number of seconds")
    return value


def _ask(query: Query) -> Ask:
    return Ask(
        id=query.text("id"),
        tail=query.number("tail", 0) or 0,
        service=query.text("service"),
        slower=_number(query, "slower"),
        errors=query.flag("errors"),
        project=query.text("project"),
        after=_number(query, "after"),
    )


async def _send(call: Call, ask: Ask) -> web.StreamResponse:
    found = call.engine.tracing.lines(ask)
    response: web.StreamResponse | None = None
    try:
        async for line in found:
            response = response or await call.begin(LINES)
            await response.write(line)
        return response or await call.begin(LINES)
    finally:
        await close_iterator(found)


async def traces(call: Call) -> web.StreamResponse:
    """GET /gemel/traces: traces, a JSON object a line, oldest first"""
    ask = _ask(call.query)
    ask.id = ""
    return await _send(call, ask)


async def trace(call: Call) -> web.StreamResponse:
    """GET /gemel/traces/{id}: one trace whole; ``newest``"""
    ask = _ask(call.query)
    ask.id = call.args["id"].lower()
    return json_response(await call.engine.tracing.show(ask))


async def otlp(call: Call) -> web.StreamResponse:
    """GET /gemel/otlp: traces as OTLP/JSON, after each line of head a request"""
    ask = _ask(call.query)
    ask.otlp = True
    return await _send(call, ask)


async def received(call: Call) -> web.StreamResponse:
    """GET /gemel/otlp/counts: what was received by OTLP and what of it is kept"""
    return await _send(call, Ask(counts=True))


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("GET", "/gemel/traces", traces)
    router.add("GET", "/gemel/traces/{id}", trace)
    router.add("GET", "/gemel/otlp", otlp)
    router.add("GET", "/gemel/otlp/counts", received)
