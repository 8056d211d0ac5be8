"""The process itself: takes OTLP, reads calls off the capture, answers the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from gemel.observe.capture.records import LIMIT, Call, Done, Increment, Peer, Query
from gemel.observe.capture.records import Order as CaptureOrder
from gemel.observe.tracing import export
from gemel.observe.tracing.listen import Intake, peer_of
from gemel.observe.tracing.records import Ask, Order
from gemel.observe.tracing.store import Store

log = logging.getLogger("gemel.traces")

#: Seconds for a first line, for the engine to come, for the capture to answer.
PATIENCE, READ = 30.0, 20.0
ASKING = 64
_FIRST = 64 << 10


class Server:
    """One per engine; ends when the engine's connection closes."""

    def __init__(self) -> None:
        self.store = Store()
        self._peers: dict[str, Peer] = {}
        self._intake = Intake(self._take, self._refused)
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.over = asyncio.Event()
        self._owned = False
        self._listeners: list[asyncio.Server] = []

    def _take(self, what: str, message: Any, address: str) -> None:
        self.store.take(what, message, peer_of(self._peers, address))

    def _refused(self) -> None:
        self.store.counts.refused += 1

    # --- calls ------------------------------------------------------------------------

    async def _read_calls(self, feed: socket.socket) -> None:
        """Reads the calls since the last time off a connection to the capture."""
        reader, writer = await asyncio.open_unix_connection(sock=feed, limit=LIMIT)
        try:
            async with asyncio.timeout(READ), self._reading:
                store = self.store
                query = Query(calls=True, after=store.seen, epoch=store.epoch)
                writer.write(msgspec.json.encode(CaptureOrder(query=query)) + b"\n")
                head = msgspec.json.decode(await reader.readline(), type=Increment)
                store.begin(head.epoch)
                while line := await reader.readline():
                    store.observe(msgspec.json.decode(line, type=Call))
        except (OSError, EOFError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.warning("reading calls: %r", error)
        finally:
            writer.close()

    # --- who asks ---------------------------------------------------------------------

    async def _connected(self, one: socket.socket) -> None:
        feeds: list[socket.socket] = []
        try:
            async with asyncio.timeout(PATIENCE):
                line, feeds = await _first_line(one)
            order = msgspec.json.decode(line, type=Order)
            reader, writer = await asyncio.open_unix_connection(sock=one, limit=LIMIT)
            try:
                if order.ask is not None:
                    for feed in feeds[:1]:
                        await self._read_calls(feed)
                        feeds = feeds[1:]
                    await self._answer(order.ask, writer)
                elif order.peers is not None:
                    await self._obey(order.peers, reader, writer)
            finally:
                await _end(writer)
        except (OSError, EOFError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.info("a connection ended: %r", error)
        finally:
            one.close()
            for feed in feeds:
                feed.close()

    async def _obey(
        self, peers: dict[str, Peer], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The engine's connection: who has which address, again and again, until it closes."""
        self._owned = True
        try:
            while True:
                self._peers = peers
                for listener in self._listeners:  # not before it is known who sends
                    await listener.start_serving()
                writer.write(msgspec.json.encode(Done(os.getpid())) + b"\n")
                await writer.drain()
                line = await reader.readline()
                if not line:
                    return
                peers = msgspec.json.decode(line, type=Order).peers or {}
        finally:
            self.over.set()

    async def _answer(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        store = self.store
        if ask.counts:
            await _write(writer, [store.told()])
        elif ask.points:
            await _write(writer, store.points())
        elif ask.otlp:
            for joined, _ in store.find(ask):
                if not ask.id or joined.id.startswith(ask.id):
                    for request in export.requests(joined):
                        end = max(node.end for node in joined.nodes())
                        head = msgspec.json.encode({"Id": joined.id, "End": end})
                        writer.write(head + b"\n" + request + b"\n")
                    await writer.drain()
        elif ask.id:
            found = store.whole(ask)
            await _write(writer, [found] if found is not None else [])
        else:
            await _write(writer, [trace for _, trace in store.find(ask)])

    # --- life -------------------------------------------------------------------------

    async def _accept(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                one, _ = await loop.sock_accept(control)
            except OSError as error:  # no descriptor is left: others close theirs
                log.warning("a connection could not be taken: %s", error)
                await asyncio.sleep(0.5)
                continue
            if len(self._tasks) >= ASKING:
                one.close()
                continue
            task = asyncio.create_task(self._connected(one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _unowned(self) -> None:
        await asyncio.sleep(PATIENCE)
        if not self._owned:
            self.over.set()  # no engine has ever come

    async def run(self, control: socket.socket, otlp: Sequence[socket.socket], ready: int) -> None:
        """Serves until the engine goes. ready: one byte is written to it once all listens."""
        loop = asyncio.get_running_loop()
        control.setblocking(False)
        listeners = [
            await loop.create_server(
                self._intake.protocol, sock=one, backlog=128, start_serving=False
            )
            for one in otlp
        ]
        self._listeners = listeners
        tasks = [asyncio.create_task(self._accept(control)), asyncio.create_task(self._unowned())]
        os.write(ready, b"1")
        os.close(ready)
        try:
            await self.over.wait()
        finally:
            for listener in listeners:
                listener.close()
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)


async def _end(writer: asyncio.StreamWriter) -> None:
    """Closes a connection once what was written has gone out; one that is not read is cut off."""
    writer.close()
    try:
        async with asyncio.timeout(PATIENCE):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, items: Sequence[Any]) -> None:
    for item in items:
        writer.write(msgspec.json.encode(item) + b"\n")
        await writer.drain()


async def _first_line(one: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """The first line of a connection, and the sockets that came with it."""
    loop = asyncio.get_running_loop()
    one.setblocking(False)
    line, feeds = b"", []
    while not line.endswith(b"\n"):
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(one, lambda ready=ready: ready.done() or ready.set_result(None))  # type: ignore[misc]
        try:
            await ready
        finally:
            loop.remove_reader(one)
        data, fds, _, _ = socket.recv_fds(one, _FIRST, 2)
        feeds += [socket.socket(fileno=fd) for fd in fds]
        if not data or len(line) > LIMIT:
            raise EOFError("no order")
        line += data
    return line, feeds
