"""Questions for other servers: sent on as they are, answered with what comes back."""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
from pathlib import Path

from gemel.net.resolv import parse

#: Seconds that one server is given, and all of them together (clients give up after 5).
ONE, ALL = 2.0, 4.0


class HostServers:
    """The host's name servers, read again when its resolv.conf changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._servers: tuple[str, ...] = ()

    def get(self) -> tuple[str, ...]:
        """Their addresses; none if the file cannot be read."""
        try:
            facts = os.stat(self._path)
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if stamp != self._stamp:
                self._servers = parse(self._path.read_text(errors="replace")).servers
                self._stamp = stamp
        except OSError:
            return ()
        return self._servers


class _Question(asyncio.DatagramProtocol):
    """One question under way to one server over UDP."""

    def __init__(self, query: bytes) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._query = query

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done() and _fits(self._query, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("closed"))


def _fits(query: bytes, answer: bytes) -> bool:
    """Whether an answer has the question's id and the question itself (up to its case)."""
    if len(answer) < 12 or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    if answer[4:6] == b"\0\0":
        return True  # an error without a question
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    end += 5
    return answer[12:end].lower() == query[12:end].lower()


async def _over_udp(query: bytes, server: str, port: int) -> bytes:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Question(query), remote_addr=(server, port)
    )
    try:
        transport.sendto(query)
        return await protocol.answer
    finally:
        transport.close()
        if protocol.answer.done() and not protocol.answer.cancelled():
            protocol.answer.exception()  # seen


async def _over_tcp(query: bytes, server: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        await writer.drain()
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        answer = await reader.readexactly(size)
        if not _fits(query, answer):
            raise ConnectionError("the answer is to another question")
        return answer
    finally:
        writer.close()


async def ask(wire: bytes, servers: tuple[str, ...], *, tcp: bool, port: int = 53) -> bytes | None:
    """Asks the servers one after the other; None if none of them answers in time.

    The question goes out under an id of its own, each over a socket of its own
    (so its port is random too), and comes back under the client's.
    """
    query = secrets.token_bytes(2) + wire[2:]
    try:
        async with asyncio.timeout(ALL):
            for server in servers[:3]:
                try:
                    async with asyncio.timeout(ONE):
                        send = _over_tcp if tcp else _over_udp
                        answer = await send(query, server, port)
                        return wire[:2] + answer[2:]
                except (OSError, TimeoutError, EOFError, ValueError):
                    continue
    except TimeoutError:
        pass
    return None
