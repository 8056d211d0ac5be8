"""Sockets of the DNS server: one UDP and one TCP socket on every gateway, and a control socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import cast

import msgspec

from gemel.net.dns.forward import HostServers, ask
from gemel.net.dns.protocol import CONTROL_LIMIT, VERSION, Done, Hello, Order, Snapshot
from gemel.net.dns.zone import Forward, Zone, failure

log = logging.getLogger("gemel.dns")

#: Questions under way to other servers at once, of all clients and of one; others are dropped.
FORWARDS, FORWARDS_OF_ONE = 256, 64
#: TCP connections at once, of all clients and of one, and seconds that an idle one is kept.
CONNECTIONS, CONNECTIONS_OF_ONE, IDLE = 128, 16, 10.0

_FREEBIND = 15  # IP_FREEBIND: bind to the address of a bridge that may come later


class _Listener(asyncio.DatagramProtocol):
    """The sockets of one gateway."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.transport: asyncio.DatagramTransport | None = None
        self.port = 0
        self.tcp: asyncio.Server | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # not isinstance: Python 3.11's own transport does not derive from the class
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.received(self, data, addr)

    def send(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, addr)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
        if self.tcp is not None:
            self.tcp.close()


def _socket(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        return made
    except OSError:
        made.close()
        raise


def _sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP on ``port``, or both on another if that is taken."""
    for attempt in (port, 0, 0, 0):
        try:
            udp = _socket(socket.SOCK_DGRAM, address, attempt)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        try:
            return udp, _socket(socket.SOCK_STREAM, address, udp.getsockname()[1])
        except OSError as error:
            udp.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free for UDP and TCP")


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


class Server:
    """Answers on all gateways of the zone that it was given last."""

    def __init__(self, resolv_conf: Path, port: int = 53) -> None:
        self._zone = Zone(Snapshot())
        self._hosts = HostServers(resolv_conf)
        self._port = port
        self._listeners: dict[str, _Listener] = {}
        self._connections: Counter[str] = Counter()
        self._forwards: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    async def install(self, snapshot: Snapshot) -> Done:
        """Takes a new snapshot; gateways come and go with it, those that stay are not touched."""
        zone = Zone(snapshot)
        failures = {}
        for gateway in self._listeners.keys() - zone.gateways:
            self._listeners.pop(gateway).close()
        for gateway in zone.gateways - self._listeners.keys():
            try:
                self._listeners[gateway] = await self._listen(gateway)
            except OSError as error:
                failures[gateway] = str(error)
                log.error("cannot listen on %s: %s", gateway, error)
        self._zone = zone
        ports = {
            gateway: listener.port
            for gateway, listener in self._listeners.items()
            if listener.port != self._port
        }
        return Done(zone.generation, ports, failures)

    async def _listen(self, address: str) -> _Listener:
        udp, tcp = _sockets(address, self._port)
        listener = _Listener(self)
        listener.port = udp.getsockname()[1]
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: listener, sock=udp)
            listener.tcp = await asyncio.start_server(self._serve, sock=tcp, backlog=64)
        except BaseException:
            listener.close()
            udp.close()
            tcp.close()
            raise
        return listener

    def close(self) -> None:
        """Closes all sockets."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for task in self._tasks:
            task.cancel()

    def received(self, listener: _Listener, data: bytes, addr: tuple[str, int]) -> None:
        """A datagram: answered at once, or sent on by a task."""
        answer = self._answer(data, addr[0], tcp=False)
        if isinstance(answer, bytes):
            listener.send(answer, addr)
        elif (
            answer is not None
            and len(self._tasks) < FORWARDS
            and self._forwards[addr[0]] < FORWARDS_OF_ONE
        ):
            self._forwards[addr[0]] += 1
            task = asyncio.create_task(self._relay(listener, data, addr, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _answer(self, data: bytes, client: str, *, tcp: bool) -> bytes | Forward | None:
        try:
            return self._zone.answer(data, client, tcp=tcp)
        except Exception:  # no packet may end the server; the log tells
            log.exception("question %s", data.hex())
            return None

    async def _ask(self, data: bytes, forward: Forward, *, tcp: bool) -> bytes:
        answer = await ask(data, forward.servers or self._hosts.get(), tcp=tcp)
        return answer if answer is not None else failure(data)

    async def _relay(
        self, listener: _Listener, data: bytes, addr: tuple[str, int], forward: Forward
    ) -> None:
        try:
            listener.send(await self._ask(data, forward, tcp=False), addr)
        finally:
            _less(self._forwards, addr[0])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's TCP connection."""
        client = (writer.get_extra_info("peername") or ("",))[0]
        self._connections[client] += 1
        try:
            while (
                self._connections[client] <= CONNECTIONS_OF_ONE
                and self._connections.total() <= CONNECTIONS
            ):
                async with asyncio.timeout(IDLE):
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    data = await reader.readexactly(size)
                    answer = self._answer(data, client, tcp=True)
                    if isinstance(answer, Forward):
                        answer = await self._ask(data, answer, tcp=True)
                    if answer is None:
                        return
                    writer.write(struct.pack(">H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            _less(self._connections, client)
            writer.close()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the engine."""
        try:
            writer.write(msgspec.json.encode(Hello(VERSION, os.getpid())) + b"\n")
            while line := await reader.readline():
                order = msgspec.json.decode(line, type=Order)
                if order.stop:
                    self.stopped.set()
                    return
                if order.snapshot is not None:
                    done = await self.install(order.snapshot)
                    writer.write(msgspec.json.encode(done) + b"\n")
                    await writer.drain()
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.error("control: %s", error)
        finally:
            writer.close()


async def serve(control: socket.socket, resolv_conf: Path, ready: int) -> None:
    """Runs the server until it is told to stop. ready: descriptor that gets a byte first."""
    server = Server(resolv_conf)
    door = await asyncio.start_unix_server(server.control, sock=control, limit=CONTROL_LIMIT)
    with contextlib.suppress(OSError):
        os.write(ready, b"1")
    os.close(ready)
    try:
        await server.stopped.wait()
    finally:
        door.close()
        server.close()
