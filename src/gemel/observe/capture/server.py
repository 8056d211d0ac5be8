"""The process itself: takes blocks out of the ring, answers the engine and those who look."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from typing import Any

import msgspec

from gemel.errors import GemelError
from gemel.host import carried
from gemel.host.packets import PacketRing
from gemel.observe.capture import dialogue
from gemel.observe.capture.flows import Flows
from gemel.observe.capture.records import (
    LIMIT,
    Done,
    Increment,
    Order,
    Query,
    Snapshot,
    Sums,
)
from gemel.observe.capture.store import Looker, Store, call, shown

log = logging.getLogger("gemel.capture")

#: Seconds within which the first line must come, and the engine must have connected.
PATIENCE = 30.0
#: Connections of those who look, at once.
LOOKERS = 256
_SWEEP = 10.0
#: Calls that are written out at once.
_PIECE = 200


class Server:
    """One per engine; ends when the engine's connection closes."""

    def __init__(self, ring: PacketRing, ledger: carried.Reader) -> None:
        self.store = Store()
        self.flows = Flows(self.store.add, ledger.find)
        self._ring = ring
        self._dropped = 0
        self._connections = 0
        self.over = asyncio.Event()
        self._owned = False
        self._epoch = f"{os.getpid()}-{time.time_ns()}"

    # --- packets ----------------------------------------------------------------------

    def _ready(self) -> None:
        for at, frame in self._ring.packets():
            self.flows.packet(at, frame)

    async def _tend(self) -> None:
        begun = time.monotonic()
        while True:
            await asyncio.sleep(_SWEEP)
            self.flows.sweep(time.time())
            self._dropped += self._ring.dropped()
            if not self._owned and time.monotonic() - begun > PATIENCE:
                self.over.set()  # no engine has ever come

    def sums(self) -> Sums:
        """Everything counted."""
        self._dropped += self._ring.dropped()
        found = self.store.sums()
        found.packets, found.dropped = self.flows.packets, self._dropped
        found.gaps, found.evicted = self.flows.gaps, self.flows.evicted
        found.flows, found.failures = len(self.flows), self.flows.failures
        return found

    # --- who asks ---------------------------------------------------------------------

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection to the control socket."""
        self._connections += 1
        try:
            if self._connections > LOOKERS:
                return
            async with asyncio.timeout(PATIENCE):
                order = msgspec.json.decode(await reader.readline(), type=Order)
            if order.query is not None:
                await self._answer(order.query, reader, writer)
            elif order.snapshot is not None:
                await self._obey(order.snapshot, reader, writer)
        except (OSError, EOFError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.info("a connection ended: %r", error)
        finally:
            self._connections -= 1
            writer.close()

    async def _obey(
        self, snapshot: Snapshot, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The engine's connection: one snapshot after the other, until it closes."""
        self._owned = True
        try:
            while True:
                self._ready()  # who sent what waits is named by whom it was known as then
                self.flows.directory.learn(snapshot.peers, time.monotonic())
                self.flows.lead(snapshot.virtual)
                done = Done(os.getpid())
                try:
                    self._ring.watch(snapshot.ports, snapshot.bridges)
                except (GemelError, ValueError) as error:
                    done.error = str(error)
                writer.write(msgspec.json.encode(done) + b"\n")
                await writer.drain()
                line = await reader.readline()
                if not line:
                    return
                order = msgspec.json.decode(line, type=Order)
                snapshot = order.snapshot or snapshot
        finally:
            self.over.set()

    async def _answer(
        self, query: Query, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if query.metrics:
            writer.write(msgspec.json.encode(self.sums()) + b"\n")
            await writer.drain()
            return
        if query.calls:
            await self._tell_calls(query.after if query.epoch == self._epoch else 0, writer)
            return
        looker = Looker(query)
        if query.follow:
            self.store.lookers.add(looker)
            dialogue.room.ask(query.bodies)
        gone = asyncio.ensure_future(reader.read(1))  # it says nothing more: it goes
        try:
            for exchange in self.store.find(query) if query.tail >= 0 else ():
                writer.write(shown(exchange, query.full))
                await writer.drain()
            if query.follow:
                await self._follow(looker, gone, writer)
        finally:
            if query.follow:
                dialogue.room.let_go(query.bodies)
            self.store.lookers.discard(looker)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _tell_calls(self, after: int, writer: asyncio.StreamWriter) -> None:
        """Calls for traces, some at a time: packets are read in between."""
        found = self.store.since(after)
        head = Increment(self._epoch, self.store.recorded)
        writer.write(msgspec.json.encode(head) + b"\n")
        for first in range(0, len(found), _PIECE):
            piece = [msgspec.json.encode(call(one)) for one in found[first : first + _PIECE]]
            writer.write(b"\n".join(piece) + b"\n")
            await writer.drain()
            await asyncio.sleep(0)

    async def _follow(
        self, looker: Looker, gone: asyncio.Future[bytes], writer: asyncio.StreamWriter
    ) -> None:
        told = 0
        while not gone.done():
            waiting = asyncio.ensure_future(looker.queue.get())
            both: set[asyncio.Future[Any]] = {waiting, gone}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                return
            writer.write(shown(waiting.result(), looker.query.full))
            if looker.dropped > told:
                told = looker.dropped
                writer.write(msgspec.json.encode({"dropped": told}) + b"\n")
            await writer.drain()

    # --- life -------------------------------------------------------------------------

    async def run(self, control: socket.socket, ready: int) -> None:
        """Serves until the engine goes. ready: one byte is written to it once all listens."""
        loop = asyncio.get_running_loop()
        listener = await asyncio.start_unix_server(self.connected, sock=control, limit=LIMIT)
        tending = asyncio.create_task(self._tend())
        loop.add_reader(self._ring.fileno(), self._ready)
        os.write(ready, b"1")
        os.close(ready)
        try:
            await self.over.wait()
        finally:
            loop.remove_reader(self._ring.fileno())
            listener.close()
            tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tending
