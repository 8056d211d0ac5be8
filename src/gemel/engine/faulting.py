"""Faults on demand between two services, until they end or are cleared (facade.Faults)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from gemel.engine import balancing
from gemel.engine.core import Core, log
from gemel.engine.facade import Json
from gemel.engine.faultmarks import Marks
from gemel.engine.peers import peer
from gemel.engine.proxied import Proxied
from gemel.engine.records import Container
from gemel.errors import GemelError, InvalidInput, NotFound
from gemel.model.faults import FaultRequest, describe
from gemel.net import faults
from gemel.net.faults import Rule

#: Faults at once; seconds that one may last at most.
MOST, LONGEST = 64, 7 * 86400.0
#: Seconds of the longest delay.
SLOWEST = 60.0


Containers = list[Container]


class _Fault:
    def __init__(self, number: int, wanted: FaultRequest) -> None:
        self.number = number
        self.wanted = wanted
        self.ends = time.monotonic() + wanted.seconds if wanted.seconds else 0.0

    @property
    def left(self) -> float:
        """Seconds until its end; 0 if it has none."""
        return max(0.001, self.ends - time.monotonic()) if self.ends else 0.0

    @property
    def over(self) -> bool:
        return bool(self.ends) and time.monotonic() >= self.ends


class Faults:
    """See the module. Nothing of it lasts longer than the engine."""

    def __init__(self, core: Core, marks: Marks) -> None:
        self.core = core
        self._marks = marks
        self._table = f"{core.paths.cgroup}-faults"
        self._faults: dict[int, _Fault] = {}
        self._number = 0
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._proxied = Proxied(f"{core.paths.cgroup}-divert", core.paths.run)
        core.observers.append(self._changed.set)

    async def prepare(self) -> None:
        """Removes what an engine before has left."""
        await faults.apply(self._table, ())
        await self._proxied.prepare()

    async def add(self, wanted: FaultRequest) -> Json:
        """A new fault. Raises InvalidInput, NotFound, Unsupported, Failed."""
        _check(wanted)
        if len(self._faults) >= MOST:
            raise InvalidInput(f"there are {MOST} faults already", resolution="gemel fault clear")
        for name in (wanted.source, wanted.target):
            self._instances(name, wanted.project)
        self._number += 1
        fault = self._faults[self._number] = _Fault(self._number, wanted)
        if not self._pairs(wanted):
            del self._faults[fault.number]
            raise InvalidInput(
                f"{wanted.source} and {wanted.target} share no network",
                details="or one of them does not run",
            )
        try:
            await self._apply()
        except BaseException:
            self._faults.pop(fault.number, None)
            raise
        self._marks.begin(fault.number, wanted)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tend(), name="faults")
        self._changed.set()
        return self._shown(fault)

    async def list(self) -> list[Json]:
        """All that hold."""
        return [self._shown(fault) for fault in self._faults.values() if not fault.over]

    async def clear(self, number: int | None) -> Json:
        """Ends one fault, or all. Raises NotFound."""
        if number is not None and number not in self._faults:
            raise NotFound(f"there is no fault {number}", resolution="`gemel fault list`")
        gone = [number] if number is not None else list(self._faults)
        for one in gone:
            del self._faults[one]
            self._marks.end(one)
        await self._apply()
        return {"Cleared": gone}

    async def close(self) -> None:
        """Ends all with the engine. Never raises GemelError."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._faults:
            self._faults.clear()
            try:
                await self._apply()
            except GemelError as error:
                log.warning("faults: %s", error)
        await self._proxied.close()

    async def _tend(self) -> None:
        """Follows addresses that change, and forgets what has ended, while there are any."""
        while self._faults or self._proxied.lingers:
            ends = [fault.left for fault in self._faults.values() if fault.ends]
            if self._proxied.lingers:
                ends.append(self._proxied.EVERY)
            try:
                async with asyncio.timeout(min(ends, default=None)):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            for number in [n for n, fault in self._faults.items() if fault.over]:
                del self._faults[number]
            try:
                await self._apply()
            except GemelError as error:
                log.warning("faults: %s", error)
                await asyncio.sleep(1)

    async def _apply(self) -> None:
        async with self._lock:
            rules = [self._rule(fault) for fault in self._faults.values() if not fault.over]
            await faults.apply(self._table, rules)
            await self._proxied.apply(
                [
                    (fault.number, fault.wanted, self._routes(fault.wanted), fault.left)
                    for fault in self._faults.values()
                    if fault.wanted.proxied and not fault.over
                ]
            )

    def _rule(self, fault: _Fault) -> Rule:
        wanted = fault.wanted
        return Rule(
            number=fault.number,
            pairs=self._pairs(wanted),
            loss=1.0 if wanted.down else wanted.loss,
            rate=wanted.rate,
            left=fault.left,
        )

    def _pairs(self, wanted: FaultRequest) -> tuple[tuple[str, str], ...]:
        """Addresses on networks that both have, each with its way back."""
        found: dict[tuple[str, str], None] = {}
        for _, mine, theirs in self._edges(wanted):
            found[mine, theirs] = found[theirs, mine] = None
        return tuple(found)

    def _routes(self, wanted: FaultRequest) -> dict[str, tuple[tuple[str, str], ...]]:
        """Addresses from and to, for each bridge's hardware address."""
        found: dict[str, dict[tuple[str, str], None]] = {}
        for network, mine, theirs in self._edges(wanted):
            mac = self.core.net.mac_for(self.core.networks[network].gateway)
            found.setdefault(mac, {})[mine, theirs] = None
        for network, mine, theirs in self._virtual_edges(wanted):
            mac = self.core.net.mac_for(self.core.networks[network].gateway)
            found.setdefault(mac, {})[mine, theirs] = None
        return {mac: tuple(pairs) for mac, pairs in found.items()}

    def _virtual_edges(self, wanted: FaultRequest) -> Iterator[tuple[str, str, str]]:
        """The same to the addresses by which callers reach any of the target's replicas."""
        try:
            sources = self._instances(wanted.source, wanted.project)
            targets = self._instances(wanted.target, wanted.project)
        except NotFound:
            return
        for network, address in balancing.owned(self.core, {one.id for one in targets}):
            for one in sources:
                for mine in one.endpoints:
                    if mine.network_id == network and mine.address:
                        yield network, mine.address, address

    def _edges(self, wanted: FaultRequest) -> Iterator[tuple[str, str, str]]:
        """Network, address from, address to, of all that the fault is about."""
        try:
            sources = self._instances(wanted.source, wanted.project)
            targets = self._instances(wanted.target, wanted.project)
        except NotFound:
            return  # they were removed; they may come again
        for one in sources:
            for other in targets:
                if one.id != other.id:
                    yield from _shared(one, other)

    def _instances(self, name: str, project: str) -> Containers:
        of_service = [
            one
            for one in self.core.containers.values()
            if peer(one).service == name and peer(one).project == (project or peer(one).project)
        ]
        return of_service or [self.core.container(name)]

    def _shown(self, fault: _Fault) -> Json:
        wanted = fault.wanted
        return {
            "Id": fault.number,
            "From": wanted.source,
            "To": wanted.target,
            "Down": wanted.down,
            "Loss": wanted.loss,
            "Rate": wanted.rate,
            "Latency": wanted.latency,
            "Jitter": wanted.jitter,
            "Status": wanted.status,
            "BodyDelay": wanted.body_delay,
            "Share": wanted.share,
            "Port": wanted.port,
            "Fault": describe(wanted),
            "Left": fault.left,
        }


def _shared(one: Container, other: Container) -> Iterator[tuple[str, str, str]]:
    """Networks that both have, with the addresses of both."""
    for mine in one.endpoints:
        for theirs in other.endpoints:
            if mine.network_id == theirs.network_id and mine.address and theirs.address:
                yield mine.network_id, mine.address, theirs.address


def _check(wanted: FaultRequest) -> None:
    if not wanted.source or not wanted.target or wanted.source == wanted.target:
        raise InvalidInput("a fault is between two services")
    if not 0 <= wanted.loss <= 1 or not 0 <= wanted.rate <= 10**11:
        raise InvalidInput("loss is a share from 0 to 1, rate at most 100 Gbit/s")
    if not (wanted.down or wanted.loss or wanted.rate or wanted.proxied):
        raise InvalidInput(
            "the fault does nothing",
            resolution="give one of --down, --loss, --rate, --latency, --http-status, --http-delay",
        )
    _check_proxied(wanted)
    if not 0 <= wanted.seconds <= LONGEST:
        raise InvalidInput("a fault lasts for a week at most")


def _check_proxied(wanted: FaultRequest) -> None:
    for name, value in (
        ("latency", wanted.latency),
        ("jitter", wanted.jitter),
        ("the delay of a body", wanted.body_delay),
    ):
        if not 0 <= value <= SLOWEST:
            raise InvalidInput(f"{name} is from 0 to {SLOWEST:g} s")
    if wanted.status and not 200 <= wanted.status <= 599:
        raise InvalidInput(f"{wanted.status} is no status that an answer can have")
    if not 0 < wanted.share <= 1:
        raise InvalidInput("share is more than 0 and at most 1")
    if wanted.share < 1 and not wanted.http:
        raise InvalidInput("share is of HTTP faults", resolution="--loss is a share of packets")
    if not 0 <= wanted.port < 65536:
        raise InvalidInput(f"{wanted.port} is no port")
