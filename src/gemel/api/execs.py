"""Routes of exec."""

from __future__ import annotations

from aiohttp import web

from gemel.api import decode
from gemel.api.call import Call
from gemel.api.containers import size_of
from gemel.api.errors import message_of
from gemel.api.hijack import RawConnection, Taken
from gemel.api.respond import empty, json_response
from gemel.api.routing import Router
from gemel.api.streams import Session, carry, multiplexed, parse_detach_keys, raw
from gemel.engine.facade import Json
from gemel.errors import Conflict, GemelError, InvalidInput
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
    await _check_startable(call, facts)
    keys = parse_detach_keys(str(facts.get("DetachKeys") or ""))
    # The answer goes out before the program starts, as from dockerd: docker-py
    # loses output that reaches it together with the head of the answer.
    connection = await call.hijack(tty)
    try:
        await _run(call, connection, facts, tty, (size[0], size[1]) if size else None, keys)
        await connection.finish()
    finally:
        connection.close()
    return Taken()


async def _check_startable(call: Call, facts: Json) -> None:
    """What can be refused with a status is refused now. Raises Conflict, NotFound."""
    if facts.get("Running") or facts.get("ExitCode") is not None:
        raise Conflict(f"Error: Exec command {facts.get('ID')} is already running")
    container = facts.get("ContainerID")
    if container and not facts.get("OfEnded"):
        state = (await call.engine.containers.inspect(container)).get("State", {})
        if not state.get("Running"):
            raise Conflict(f"Container {container} is not running")
        if state.get("Paused"):
            raise Conflict(f"Container {container} is paused, unpause the container before exec")


async def _run(
    call: Call,
    connection: RawConnection,
    facts: Json,
    tty: bool,
    size: tuple[int, int] | None,
    keys: bytes,
) -> None:
    try:
        _, stream = await call.engine.execs.start(facts["ID"], None, size)
    except GemelError as error:
        # the client shows the text as output and then asks for the exit code (127, 126)
        text = f"{message_of(error)}\r\n".encode()
        await connection.write((raw if tty else multiplexed)(1, text))
        return
    outputs = ((1, facts.get("OpenStdout", True)), (2, facts.get("OpenStderr", True)))
    session = Session(
        stream,
        tty=tty,
        stdin=bool(facts.get("OpenStdin", True)),
        wanted=frozenset(number for number, on in outputs if on),
        detach_keys=keys,
    )
    await carry(connection, session)


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
