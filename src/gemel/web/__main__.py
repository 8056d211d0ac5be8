"""``python -m gemel.web``: the dashboard's process, started by the engine.

It says its port in a line of JSON on standard output, takes one-time codes on standard
input (``code TEXT``), and ends when that closes: with the engine, however the engine ends.
"""

from __future__ import annotations

# the first two: nothing can be loaded any more once the rights are given up
import _strptime  # type: ignore[import-not-found]  # noqa: F401
import argparse
import asyncio
import encodings.idna  # noqa: F401
import gc
import json
import logging
import os
import socket
import sys
from pathlib import Path

from aiohttp import web

from gemel.errors import GemelError
from gemel.host import packets, privileges
from gemel.web import assets
from gemel.web.gate import Gate
from gemel.web.server import Site
from gemel.web.upstream import Upstream

#: Bytes of address space.
MEMORY = 1 << 30
#: The port that is tried first when none is asked for: an address that stays is nicer.
FAVOURITE = 7433
_CLOSE = 2.0


def bind(port: int) -> socket.socket:
    """A listening socket on this machine's loopback. Raises OSError if the port is taken."""
    for wanted in [port] if port else [FAVOURITE, 0]:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", wanted))
            made.listen(128)
        except OSError:
            made.close()
            if wanted in (port, 0):
                raise
            continue
        return made
    raise AssertionError("not reached")


async def serve(site: Site, gate: Gate, listening: socket.socket) -> None:
    """Answers until standard input closes."""
    over = asyncio.Event()
    reader = asyncio.StreamReader(limit=4096)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    runner = web.AppRunner(
        site.application(), access_log=None, shutdown_timeout=_CLOSE, keepalive_timeout=60.0
    )
    await runner.setup()
    port = listening.getsockname()[1]
    site.name_cookie(port)
    await web.SockSite(runner, listening).start()
    working = asyncio.create_task(site.run(), name="site")
    obeying = asyncio.create_task(_obey(reader, gate), name="orders")
    for task in (working, obeying):
        task.add_done_callback(lambda _: over.set())
    print(json.dumps({"port": port}), flush=True)
    try:
        await over.wait()
    finally:
        for task in (working, obeying):
            task.cancel()
        await asyncio.gather(working, obeying, return_exceptions=True)
        await runner.cleanup()
        await site.upstream.close()
    if working.done() and not working.cancelled() and (error := working.exception()):
        raise error


async def _obey(reader: asyncio.StreamReader, gate: Gate) -> None:
    while line := await reader.readline():
        word, _, code = line.decode("ascii", "replace").strip().partition(" ")
        if word == "code" and code:
            gate.add_code(code)
            print(json.dumps({"taken": True}), flush=True)


def main() -> None:
    """Reads its files and takes its port as root, then becomes somebody who may only ask."""
    parser = argparse.ArgumentParser(prog="gemel-web")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        listening = bind(arguments.port)
        # a relative path: folders above may be closed to the user that it becomes
        os.chdir(arguments.run_dir)
        files = assets.load()
        privileges.set_name("gemel-web")
        packets.limit_memory(MEMORY)
        if os.geteuid() == 0:
            # the group that may use the engine's socket, and no right beside that
            privileges.drop_root(gid=os.stat("gemel.sock").st_gid)
    except (OSError, GemelError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)
    gate = Gate()
    gc.freeze()
    asyncio.run(serve(Site(Upstream("gemel.sock"), gate, files), gate, listening))


if __name__ == "__main__":
    main()
