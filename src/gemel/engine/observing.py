"""What services say to each other, as the engine offers it (facade.Observing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from gemel.engine import balancing, metrics, spec
from gemel.engine.core import Core, log
from gemel.engine.facade import Json
from gemel.engine.faultmarks import Marks
from gemel.engine.peers import peer, virtual
from gemel.engine.records import Container
from gemel.errors import InvalidInput, NotFound
from gemel.host.packets import interface_index
from gemel.observe.capture.records import Peer, Query, Snapshot
from gemel.observe.tracing.records import Point
from gemel.observe.traffic import Traffic


class Observing:
    """Owns the capturing process. It is started by the first who looks."""

    def __init__(self, core: Core, marks: Marks) -> None:
        self.core = core
        self.marks = marks
        self.traffic = Traffic(core.paths.run, self.snapshot)
        core.observers.append(self.traffic.notice)
        core.observed = self.traffic.caught_up
        self.points: Callable[[], Awaitable[list[Point]]] = _no_points

    def snapshot(self) -> Snapshot:
        """Whom to look at: the ports of all that run, the bridges, and who has which address."""
        core = self.core
        ports: list[int] = []
        bridges: list[int] = []
        peers = virtual(core)
        for network in core.networks.values():
            if network.gateway and (index := interface_index(network.bridge)):
                peers[network.gateway] = Peer(name="host")
                bridges.append(index)
        for one in core.containers.values():
            if one.state.running and one.endpoints:
                peers |= dict.fromkeys((e.address for e in one.endpoints if e.address), peer(one))
                ports += _ports(core, one)
        return Snapshot(tuple(ports), tuple(bridges), peers, balancing.led_to(core))

    async def start(self) -> bool:
        """Makes sure that traffic is recorded; True if that begins now. Raises Failed."""
        return await self.traffic.start()

    async def stop(self) -> None:
        """Ends the recording; what was recorded is gone."""
        await self.traffic.stop()

    async def lines(self, query: Query) -> AsyncIterator[bytes]:
        """Exchanges as JSON lines, oldest first; nothing while nothing is recorded."""
        async for line in self.traffic.lines(query):
            yield self.marks.line(line)

    async def show(self, id: str) -> Json:
        """One exchange whole. Raises NotFound, InvalidInput."""
        if not id.isdigit() or len(id) > 18:
            raise InvalidInput(f"`{id[:40]}` is no number of an exchange")
        async for line in self.traffic.lines(Query(id=id, full=True)):
            shown: Json = msgspec.json.decode(self.marks.line(line))
            return shown
        raise NotFound(
            f"no exchange {id} is recorded",
            details="only those of late are kept, while the recording goes on",
            resolution="`gemel traffic` lists them",
        )

    async def metrics(self) -> str:
        """Prometheus' text format."""
        return await metrics.page(self.core, self.traffic, await self.points())

    async def close(self) -> None:
        """Ends the process with the engine. Never raises."""
        try:
            async with asyncio.timeout(10):
                await self.traffic.stop()
        except Exception:
            log.exception("ending the capturing process")


async def _no_points() -> list[Point]:
    return []


def _ports(core: Core, one: Container) -> list[int]:
    try:
        found = [interface_index(interface.host) for interface in spec.interfaces(core, one)]
    except KeyError:  # a network that is being removed
        return []
    return [index for index in found if index]
