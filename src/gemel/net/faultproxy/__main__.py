"""``python -m gemel.net.faultproxy FILE``: a child of the engine; it ends with its standard input.

FILE: where it enters which connections it makes for which others (``gemel.host.carried``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import msgspec
from aiohttp import web

from gemel.host import privileges
from gemel.host.carried import Ledger
from gemel.net.faultproxy.flow import PIECE, Flows
from gemel.net.faultproxy.protocol import LIMIT, Edges, Ready, Table
from gemel.net.faultproxy.web import Web

_BACKLOG = 512


def _listen() -> socket.socket:
    sock = socket.socket()
    sock.bind(("0.0.0.0", 0))
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


async def serve(ledger: Ledger) -> None:
    """Until the engine is gone."""
    table = Table()
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    raw, http = _listen(), _listen()
    flows = Flows(table, ledger)
    async with Web(table, ledger) as faulty:
        carried = await asyncio.start_server(flows.accept, sock=raw, limit=PIECE)
        runner = web.ServerRunner(web.Server(faulty.handle, access_log=None))
        await runner.setup()
        await web.SockSite(runner, http, backlog=_BACKLOG).start()
        ready = Ready(raw.getsockname()[1], http.getsockname()[1])
        while line := await orders.readline():
            table.set(msgspec.json.decode(line, type=Edges))
            sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
            sys.stdout.buffer.flush()
        carried.close()
        await runner.cleanup()


def main() -> None:
    """Becomes nobody, serves."""
    privileges.set_name("gemel-faults")
    with Ledger(Path(sys.argv[1])) as ledger:
        if os.geteuid() == 0:
            privileges.drop_root()
        asyncio.run(serve(ledger))


if __name__ == "__main__":
    main()
