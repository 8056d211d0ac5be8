"""A terminal in a service: the page's websocket on one side, an exec of the engine on the other.

Both sides pull: a program that writes faster than the page shows is held up by its terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from gemel.errors import GemelError
from gemel.web.upstream import Upstream, path

#: Terminals at once; bytes that are handed on at a time.
MOST, PIECE = 32, 32 << 10
#: Seconds that a page may take to read a piece.
PATIENCE = 60.0

#: The nicest shell that there is; TERM is what xterm.js understands.
#: It says its number first, so that it can be ended when the page goes.
SHELL = (
    "/bin/sh",
    "-c",
    r"printf '\033]7711;%s\007' $$; command -v bash >/dev/null 2>&1 && exec bash; exec sh",
)
_NUMBER = re.compile(rb"\x1b\]7711;(\d{1,9})\x07")
ENV = ("TERM=xterm-256color", "COLORTERM=truecolor", "LANG=C.UTF-8")


def size(text: Any, least: int, most: int) -> int:
    """A number of rows or columns, kept within bounds."""
    try:
        return min(most, max(least, int(text)))
    except (TypeError, ValueError):
        return 24 if least < 10 else 80


async def run(upstream: Upstream, id: str, socket: web.WebSocketResponse, query: Any) -> None:
    """Carries bytes until either side ends. Tells of failures in text frames."""
    rows, columns = size(query.get("rows"), 2, 500), size(query.get("columns"), 10, 1000)
    try:
        made = await upstream.call(
            "POST",
            path("containers", id, "exec"),
            body={
                "Cmd": SHELL, "Env": ENV, "Tty": True, "AttachStdin": True,
                "AttachStdout": True, "AttachStderr": True, "ConsoleSize": [rows, columns],
            },
        )  # fmt: skip
        exec_id = str(made["Id"])
        reader, writer = await upstream.hijack(
            path("exec", exec_id, "start"),
            {"Detach": False, "Tty": True, "ConsoleSize": [rows, columns]},
        )
    except GemelError as error:
        await _tell(socket, {"error": error.brief, "resolution": error.resolution})
        return
    try:
        number = await _number(reader, socket)
        output = asyncio.create_task(_output(reader, socket), name="terminal output")
        input = asyncio.create_task(_input(upstream, exec_id, socket, writer), name="terminal")
        await asyncio.wait({output, input}, return_when=asyncio.FIRST_COMPLETED)
        ended = output.done()
        for task in (output, input):
            task.cancel()
        await asyncio.gather(output, input, return_exceptions=True)
        if ended:
            await _ended(upstream, exec_id, socket)
        elif number:
            await _hang_up(upstream, id, exec_id, number)
    finally:
        writer.close()


async def _number(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> int:
    """The shell's process number, which it says first; 0 if what comes is something else."""
    try:
        async with asyncio.timeout(PATIENCE):
            said = await reader.readuntil(b"\x07")
    except asyncio.IncompleteReadError as error:
        said = error.partial
    except (TimeoutError, asyncio.LimitOverrunError):
        return 0
    found = _NUMBER.fullmatch(said)
    if found is None:
        await socket.send_bytes(said)
        return 0
    return int(found[1])


async def _hang_up(upstream: Upstream, id: str, exec_id: str, number: int) -> None:
    """Ends the shell of a page that has gone: a program of `exec` would go on without it."""
    with contextlib.suppress(GemelError):
        if not (await upstream.call("GET", path("exec", exec_id, "json"))).get("Running"):
            return
        made = await upstream.call(
            "POST",
            path("containers", id, "exec"),
            body={"Cmd": ["/bin/sh", "-c", f"kill -HUP {number}"]},
        )
        await upstream.call("POST", path("exec", str(made["Id"]), "start"), body={"Detach": True})


async def _ended(upstream: Upstream, exec_id: str, socket: web.WebSocketResponse) -> None:
    status = None
    with contextlib.suppress(GemelError):
        status = (await upstream.call("GET", path("exec", exec_id, "json"))).get("ExitCode")
    told: dict[str, Any] = {"ended": status}
    if status in (126, 127):
        told["error"] = "there is no shell in this image"
    await _tell(socket, told)


async def _tell(socket: web.WebSocketResponse, what: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await socket.send_str(msgspec.json.encode(what).decode())


async def _output(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    while data := await reader.read(PIECE):
        async with asyncio.timeout(PATIENCE):
            await socket.send_bytes(data)


async def _input(
    upstream: Upstream, exec_id: str, socket: web.WebSocketResponse, writer: asyncio.StreamWriter
) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data)
            await writer.drain()
        elif message.type is WSMsgType.TEXT:
            with contextlib.suppress(msgspec.MsgspecError, GemelError, AttributeError):
                wanted = msgspec.json.decode(message.data)
                rows = size(wanted.get("rows"), 2, 500)
                columns = size(wanted.get("columns"), 10, 1000)
                await upstream.call(
                    "POST",
                    path("exec", exec_id, "resize"),
                    {"h": str(rows), "w": str(columns)},
                )
        else:
            return
