"""Routes of exec."""

from __future__ import annotations

from aiohttp import web

from gemel.api import decode
from gemel.api.call import Call
from gemel.api.containers import size_of
from gemel.api.errors import message_of
from gemel.api.hijack import Taken
from gemel.api.respond import empty, json_response
from gemel.api.routing import Router
from gemel.api.streams import Session, carry, multiplexed, parse_detach_keys, raw
from gemel.errors import CommandNotFound, CommandNotRunnable, InvalidInput
from gemel.model.docker import ExecCreate


async def create(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/exec"""
    request = await call.decode(ExecCreate)
    if not request.cmd:
        raise InvalidInput("No exec command specified")
    parse_detach_keys(request.detach_keys)
    made = await call.engine.execs.create(call.args["id"], request)
    return json_response({"Id": made}, status=201)


async def start(call: Call) -> web.StreamResponse:
    """POST /exec/{id}/start"""
    id = call.args["id"]
    body = await call.decode_object()
    size = decode.field(body, "ConsoleSize", list[int], [])
    if size and (len(size) != 2 or not all(0 <= part < 65536 for part in size)):
        raise InvalidInput("ConsoleSize is a pair of rows and columns")
    tty = decode.field(body, "Tty", bool, False)
    if decode.field(body, "Detach", bool, False):
        await call.engine.execs.start_detached(id)
        return empty(200)
    facts = await call.engine.execs.inspect(id)
    keys = parse_detach_keys(str(facts.get("DetachKeys") or ""))
    try:
        tty, session = await call.engine.execs.start(id, tty, (size[0], size[1]) if size else None)
    except (CommandNotFound, CommandNotRunnable) as error:
        # dockerd has switched to the raw stream by now: the client shows the
        # text as output and asks for the exit code (127, 126) afterwards
        return await _tell(call, tty, message_of(error))
    try:
        connection = await call.hijack(tty)
    except BaseException:
        await session.close()
        raise
    wanted = {
        number
        for number, on in ((1, facts.get("OpenStdout", True)), (2, facts.get("OpenStderr", True)))
        if on
    }
    try:
        await carry(
            connection,
            Session(
                session,
                tty=tty,
                stdin=bool(facts.get("OpenStdin", True)),
                wanted=frozenset(wanted),
                detach_keys=keys,
            ),
        )
        await connection.finish()
    finally:
        connection.close()
    return Taken()


async def _tell(call: Call, tty: bool, text: str) -> web.StreamResponse:
    connection = await call.hijack(tty)
    try:
        await connection.write((raw if tty else multiplexed)(1, f"{text}\r\n".encode()))
        await connection.finish()
    finally:
        connection.close()
    return Taken()


async def inspect(call: Call) -> web.StreamResponse:
    """GET /exec/{id}/json"""
    return json_response(await call.engine.execs.inspect(call.args["id"]))


async def resize(call: Call) -> web.StreamResponse:
    """POST /exec/{id}/resize"""
    rows, columns = size_of(call)
    await call.engine.execs.resize(call.args["id"], rows, columns)
    return empty(200)


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("POST", "/containers/{id}/exec", create)
    router.add("POST", "/exec/{id}/start", start)
    router.add("POST", "/exec/{id}/resize", resize)
    router.add("GET", "/exec/{id}/json", inspect)
