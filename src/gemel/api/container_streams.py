"""Routes of containers whose answer is a stream: logs, attach, files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import stat
from collections.abc import AsyncIterator

import msgspec
from aiohttp import WSMsgType, web

from gemel.api.call import Call
from gemel.api.decompress import decompressed
from gemel.api.hijack import Taken
from gemel.api.respond import TAR, close_iterator, empty
from gemel.api.routing import Router
from gemel.api.streams import Session, carry, multiplexed_lines, parse_detach_keys, raw
from gemel.engine.facade import Attached, LogQuery
from gemel.errors import GemelError, InvalidInput
from gemel.runtime.base import PathStat

_STAT_HEADER = "X-Docker-Container-Path-Stat"

#: Bits of Go's os.FileMode for what st_mode says (docker cp decides by them).
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_file_mode(mode: int) -> int:
    """st_mode of stat(2) as Go's os.FileMode."""
    special = sum(go for bit, go in _GO_BITS if mode & bit)
    return mode & 0o777 | _GO_TYPES.get(stat.S_IFMT(mode), 0) | special


def _wanted(call: Call) -> frozenset[int]:
    out, err = call.query.flag("stdout"), call.query.flag("stderr")
    return frozenset(number for number, on in ((1, out), (2, err)) if on)


async def logs(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/logs"""
    query, wanted = call.query, _wanted(call)
    if not wanted:
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    tail = query.text("tail", "all").strip()
    wanted_lines = int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 16 else None
    tty, pieces = await call.engine.containers.logs(
        call.args["id"],
        LogQuery(
            stdout=1 in wanted,
            stderr=2 in wanted,
            follow=query.flag("follow"),
            since=query.moment("since"),
            until=query.moment("until"),
            tail=wanted_lines,
            timestamps=query.flag("timestamps"),
        ),
    )
    frame = raw if tty else multiplexed_lines
    try:
        response = await call.begin(call.stream_type(tty))
        try:
            async for number, data in pieces:
                if data:
                    await response.write(frame(number, data))
        except GemelError as error:
            await response.write(frame(2, f"Error grabbing logs: {error}\n".encode()))
        return response
    finally:
        await close_iterator(pieces)


async def _attached(call: Call) -> tuple[Attached, Session]:
    query, wanted = call.query, _wanted(call)
    keys = parse_detach_keys(query.text("detachKeys"))
    stream, stdin = query.flag("stream"), query.flag("stdin")
    attached = await call.engine.containers.attach(
        call.args["id"], history=query.flag("logs"), stdin=stdin and stream
    )
    return attached, Session(
        attached.stream,
        tty=attached.tty,
        stdin=stdin and stream,
        wanted=wanted,
        detach_keys=keys,
        history=attached.history,
        follow=stream,
    )


async def attach(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/attach"""
    attached, session = await _attached(call)
    try:
        connection = await call.hijack(attached.tty)
    except BaseException:
        await close_iterator(attached.history)
        await attached.stream.close()
        raise
    try:
        await carry(connection, session)
        await connection.finish()
    finally:
        connection.close()
    return Taken()


async def attach_websocket(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/attach/ws: both output streams unframed, in binary messages."""
    socket = web.WebSocketResponse(max_msg_size=1 << 20)
    if not socket.can_prepare(call.request):
        raise InvalidInput("this route speaks the websocket protocol only")
    _, session = await _attached(call)
    call.streams()
    wanted = session.wanted or frozenset((1, 2))

    async def output() -> None:
        if session.history is not None:
            async for number, data in session.history:
                if number in wanted and data:
                    await socket.send_bytes(data)
        while session.follow and (piece := await session.stream.read()) is not None:
            if piece[0] in wanted and piece[1]:
                await socket.send_bytes(piece[1])

    async def stdin() -> None:
        async for message in socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or not session.stdin:
                continue
            data = message.data.encode() if isinstance(message.data, str) else message.data
            with contextlib.suppress(GemelError, OSError):
                await session.stream.write(data)

    tasks: list[asyncio.Task[None]] = []
    try:
        await socket.prepare(call.request)
        tasks = [asyncio.create_task(output()), asyncio.create_task(stdin())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_iterator(session.history)
        await session.stream.close()
    await socket.close()
    return socket


def path_stat_header(found: PathStat) -> str:
    """The value of X-Docker-Container-Path-Stat."""
    moment = datetime.datetime.fromtimestamp(found.mtime, datetime.UTC)
    value = {
        "name": found.name,
        "size": found.size,
        "mode": go_file_mode(found.mode),
        "mtime": moment.isoformat().replace("+00:00", "Z"),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(msgspec.json.encode(value)).decode()


def _path(call: Call) -> str:
    path = call.query.text("path")
    if not path:
        raise InvalidInput("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidInput("bad parameter: path holds a zero byte")
    return path


async def stat_archive(call: Call) -> web.StreamResponse:
    """HEAD /containers/{id}/archive"""
    found = await call.engine.containers.stat_path(call.args["id"], _path(call))
    return web.Response(headers={_STAT_HEADER: path_stat_header(found)})


async def get_archive(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/archive"""
    found, tar = await call.engine.containers.read_archive(call.args["id"], _path(call))
    return await call.send_bytes(tar, TAR, {_STAT_HEADER: path_stat_header(found)})


async def put_archive(call: Call) -> web.StreamResponse:
    """PUT /containers/{id}/archive"""
    path = _path(call)
    keep = call.query.flag("noOverwriteDirNonDir")
    as_user = call.query.flag("copyUIDGID")
    tar: AsyncIterator[bytes] = decompressed(call.chunks())
    try:
        await call.engine.containers.write_archive(
            call.args["id"], path, tar, keep=keep, as_user=as_user
        )
    finally:
        await close_iterator(tar)
    return empty(200)


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("GET", "/containers/{id}/logs", logs)
    router.add("POST", "/containers/{id}/attach", attach)
    router.add("GET", "/containers/{id}/attach/ws", attach_websocket)
    router.add("HEAD", "/containers/{id}/archive", stat_archive)
    router.add("GET", "/containers/{id}/archive", get_archive)
    router.add("PUT", "/containers/{id}/archive", put_archive)
