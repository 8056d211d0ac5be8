"""Faults that a proxy carries out: kernel and proxy brought to what holds, and kept there.

The kernel forgets an edge within seconds unless it is told again: should the engine die, services
reach each other as before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gemel.engine.core import log
from gemel.errors import GemelError
from gemel.host import carried
from gemel.host.child import Child
from gemel.model.faults import FaultRequest
from gemel.net import divert
from gemel.net.divert import Diverted
from gemel.net.faultproxy.protocol import Edge, Edges, Ready

Routes = dict[str, tuple[tuple[str, str], ...]]
#: Number, what was asked for, addresses for each bridge, seconds left (0: no end).
Wanted = tuple[int, FaultRequest, Routes, float]


class Proxied:
    """Calls must not overlap."""

    EVERY = divert.HOLD / 3
    """Seconds after which ``apply`` is to be called again while ``lingers``."""
    LINGER = 30.0
    """Seconds for which connections that are on their way are still carried at the end."""

    def __init__(self, table: str, run: Path) -> None:
        """run: the engine's folder of what runs."""
        self._table = table
        self._place = carried.place(run)
        self._proxy = Child(
            "gemel.net.faultproxy", "the process that delays connections", str(self._place)
        )
        self._last = 0.0
        """When there was one last (monotonic); 0 when nothing is in place."""

    async def prepare(self) -> None:
        """Removes what an engine before has left."""
        await divert.remove(self._table)

    @property
    def lingers(self) -> bool:
        """Whether something is in place that has to be tended."""
        return bool(self._last)

    async def apply(self, wanted: Sequence[Wanted]) -> None:
        """Brings proxy and kernel to these. Raises Failed, Unavailable."""
        if wanted:
            self._last = time.monotonic()
        elif not self._last:
            return
        elif time.monotonic() - self._last > self.LINGER:
            await self._end()
            return
        edges = Edges(tuple(_edge(*one) for one in wanted))
        told = await self._proxy.tell(msgspec.json.encode(edges))
        ready = msgspec.json.decode(told, type=Ready)
        await divert.apply(
            self._table,
            [
                Diverted(
                    number=number,
                    pairs=routes,
                    to=ready.web if fault.http else ready.raw,
                    port=fault.port,
                    left=left,
                )
                for number, fault, routes, left in wanted
            ],
        )

    async def _end(self) -> None:
        self._last = 0.0
        await self._proxy.close()
        await divert.remove(self._table)

    async def close(self) -> None:
        """Ends all at once. Never raises GemelError."""
        if self._last:
            try:
                await self._end()
            except GemelError as error:
                log.warning("faults: %s", error)
        self._place.unlink(missing_ok=True)


def _edge(number: int, fault: FaultRequest, routes: Routes, left: float) -> Edge:
    return Edge(
        number=number,
        pairs=tuple(pair for pairs in routes.values() for pair in pairs),
        port=fault.port,
        latency=fault.latency,
        jitter=fault.jitter,
        status=fault.status,
        share=fault.share,
        body_delay=fault.body_delay,
    )
