"""A connection carried on byte for byte, what the source sends later than it came."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from gemel.host.carried import Address, Ledger
from gemel.net.faultproxy.protocol import Edge, Table

#: getsockopt: where a redirected connection wanted to go (linux/netfilter_ipv4.h).
_ORIGINAL_DST = 80
CONNECT, PIECE, PIECES = 10.0, 64 << 10, 64
"""Seconds for a connection to the target; bytes of a piece; pieces that are late at once."""
MOST = 4096
"""Connections at once."""


def wanted(sock: socket.socket) -> Address | None:
    """Where a connection was going before it was led here; None if it was going here."""
    try:
        raw = sock.getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)
    except OSError:
        return None
    port, packed = struct.unpack_from("!2xH4s", raw)
    target = socket.inet_ntoa(packed), port
    return None if target == sock.getsockname()[:2] else target


class Flows:
    """All connections that only are to be late."""

    def __init__(self, table: Table, ledger: Ledger) -> None:
        self._table = table
        self._ledger = ledger
        self.live = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end. Never raises."""
        sock = writer.get_extra_info("socket")
        target = wanted(sock)
        source = writer.get_extra_info("peername")[:2]
        self.live += 1
        try:
            if target is not None and self.live <= MOST:
                await self._carry(source, target, reader, writer)
        except (OSError, TimeoutError):
            pass
        finally:
            self.live -= 1
            writer.transport.abort()

    async def _carry(
        self,
        source: Address,
        target: Address,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        there, out = await self._connect(source, target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_late(self._table, source[0], target, reader, out))
                group.create_task(_at_once(there, writer))
        except* (OSError, EOFError):
            pass
        finally:
            out.transport.abort()

    async def _connect(
        self, source: Address, target: Address
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        edge = self._table.find(source[0], *target, http=False)
        sock = self._ledger.socket(source, target, edge.number if edge else 0, once=False)
        try:
            async with asyncio.timeout(CONNECT):
                await asyncio.get_running_loop().sock_connect(sock, target)
            return await asyncio.open_connection(sock=sock, limit=PIECE)
        except BaseException:
            sock.close()
            raise


async def _at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _late(
    table: Table,
    source: str,
    target: Address,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Each piece is sent on when its time has come; their order stays."""
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)
    clock = asyncio.get_running_loop().time

    async def send() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        while True:
            data = await reader.read(PIECE)
            edge: Edge | None = table.find(source, *target, http=False)
            # a fault that has ended meanwhile delays no more
            await queue.put((clock() + (edge.delay() if edge else 0.0), data))
            if not data:
                break
