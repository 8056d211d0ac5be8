"""What the parts of the engine share: records, the siblings below, names and ports.

Only this module and those beside it change records; each change of a
container happens under that container's lock (``Live.lock``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

from gemel.engine import balancing
from gemel.engine.events import Events
from gemel.engine.records import Container, EndpointRecord, Volume
from gemel.engine.rotation import Rotation
from gemel.engine.state import Store
from gemel.errors import Conflict, GemelError, NotFound
from gemel.image.store import ImageStore
from gemel.model.docker import HostConfig
from gemel.model.instance import Exit, RuntimeName
from gemel.model.network import Endpoint, NetworkInfo, PublishedPort
from gemel.model.paths import Paths
from gemel.net.manager import NetworkManager
from gemel.runtime.base import Runtime

log = logging.getLogger("gemel.engine")


class Witness(Protocol):
    """Is told what becomes of containers. Nothing of it raises."""

    def started(self, one: Container) -> None:
        """It runs."""
        ...

    async def ended(self, one: Container, exit: Exit, asked: bool) -> None:
        """It has ended, and what is left of its run is still there. Comes back soon.

        asked: somebody wanted that end.
        """
        ...

    def sick(self, one: Container) -> None:
        """Its health check says for the first time that it is unhealthy."""
        ...


class Once(NamedTuple):
    """A start for a debugger. halted: stopped before the first instruction. env: added."""

    halted: bool = False
    env: tuple[str, ...] = ()


class Live:
    """What is known of a container in memory only."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.ended = asyncio.Event()
        """Set while no process of it runs; log followers end by it."""
        self.ended.set()
        self.begun = asyncio.Event()
        """Set while its process runs."""
        self.over = asyncio.Event()
        """Set at the end of the present run; see ``upcoming``."""
        self.settled = asyncio.Event()
        """Set once it has ended and will not be started again by its policy."""
        self.settled.set()
        self.gone = asyncio.Event()
        """Set when it is removed."""
        self.exits: set[asyncio.Future[int]] = set()
        """Those who wait for the next exit."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.stopping = False
        self.again = False
        """It is ended to be started again, whatever its policy says."""
        self.started = 0.0
        """Monotonic time of the last start."""
        self.size: tuple[int, int] | None = None
        self.once = Once()
        """How the next start, and it alone, differs from what the record says."""
        self.debugged = 0
        """Debug sessions beside it: meanwhile it is not ended for being unhealthy."""
        self.stats: tuple[int, int] | None = None
        """CPU nanoseconds and time of the sample before."""

    def upcoming(self) -> asyncio.Event:
        """Set at the end of the run that goes on, or, between two, of the next one."""
        if self.over.is_set():
            self.over = asyncio.Event()
        return self.over

    def stopped(self) -> None:
        """No process of it runs (any more)."""
        self.begun.clear()
        self.ended.set()
        self.over.set()


class Coalesced:
    """Runs one job at a time; whoever asks meanwhile shares the next run."""

    def __init__(self, job: Callable[[], Awaitable[None]]) -> None:
        self._job = job
        self._lock = asyncio.Lock()
        self._asked = 0
        self._done = 0

    async def __call__(self) -> None:
        """Comes back after a whole run that began after this call."""
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if self._done >= mine:
                return
            upto = self._asked
            await self._job()
            self._done = upto


async def nobody() -> None:
    """Nobody looks: there is nothing to wait for."""


class Core:
    """See the module's text."""

    def __init__(
        self,
        paths: Paths,
        images: ImageStore,
        net: NetworkManager,
        runtimes: dict[RuntimeName, Runtime],
    ) -> None:
        self.paths = paths
        self.store = Store(paths.state)
        self.events = Events()
        self.rotation = Rotation(paths)
        self.images = images
        self.net = net
        self.runtimes = runtimes
        self.containers: dict[str, Container] = {}
        self.networks: dict[str, NetworkInfo] = {}
        self.volumes: dict[str, Volume] = {}
        self.live: dict[str, Live] = {}
        self.virtual: dict[balancing.Key, str] = {}
        """Virtual addresses of names, see balancing."""
        self.sync_names = Coalesced(self._names)
        self.sync_ports = Coalesced(self._ports)
        self.observers: list[Callable[[], None]] = []
        """Called when addresses or ports of networks change; they neither wait nor raise."""
        self.observed: Callable[[], Awaitable[None]] = nobody
        """Waits, for a bounded time, until those who look know of what was changed last."""
        self.otlp = False
        """Whether services find an OTLP endpoint at the gateways of their networks."""
        self.stand_ins: list[Callable[[], list[Endpoint]]] = []
        """Names that lead to something else than an instance."""
        self.promised: set[tuple[str, str]] = set()
        """Network id and address of containers that are being made, not kept yet."""
        self.witness: Witness | None = None
        self.revisions: Counter[str] = Counter()
        """How often each container was saved or told of."""
        self.generation = 0
        """Grows with every change of a container that somebody may see."""
        self.started = time.time()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- look-ups -----------------------------------------------------------------

    def container(self, ref: str) -> Container:
        """By id, name or unique id prefix. Raises NotFound, Conflict for an ambiguous prefix."""
        plain = ref.removeprefix("/")
        found = self.containers.get(plain)
        if found is None:
            found = next((c for c in self.containers.values() if c.name == plain), None)
        if found is None and plain:
            by_prefix = [c for c in self.containers.values() if c.id.startswith(plain)]
            if len(by_prefix) > 1:
                raise Conflict(f"multiple IDs found with provided prefix: {plain}")
            found = by_prefix[0] if by_prefix else None
        if found is None:
            raise NotFound(f"No such container: {ref}")
        return found

    def network(self, ref: str) -> NetworkInfo:
        """By id, name or unique id prefix. Raises NotFound, Conflict."""
        found = self.networks.get(ref)
        if found is None:
            found = next((n for n in self.networks.values() if n.name == ref), None)
        if found is None and ref:
            by_prefix = [n for n in self.networks.values() if n.id.startswith(ref)]
            if len(by_prefix) > 1:
                raise Conflict(f"network {ref} is ambiguous ({len(by_prefix)} matches found)")
            found = by_prefix[0] if by_prefix else None
        if found is None:
            raise NotFound(f"network {ref} not found", resolution="`gemel network ls` lists them")
        return found

    def volume(self, name: str) -> Volume:
        """Raises NotFound."""
        try:
            return self.volumes[name]
        except KeyError:
            brief = f"get {name}: no such volume"
            raise NotFound(brief, resolution="`gemel volume ls` lists them") from None

    def runtime(self, one: Container) -> Runtime:
        """The runtime of a container."""
        return self.runtimes[one.runtime]

    def address(self, one: Container) -> str:
        """An address at which the host reaches a container; empty without a network."""
        mode = (one.request.host_config or HostConfig()).network_mode
        if mode == "host":
            return "127.0.0.1"
        if mode.startswith("container:"):
            with contextlib.suppress(NotFound, Conflict):
                other = self.container(mode.removeprefix("container:"))
                return self.address(other) if other is not one else ""
            return ""
        return next((end.address for end in one.endpoints if end.address), "")

    def users_of_image(self, image_id: str) -> list[str]:
        """Names of the containers made from an image."""
        return [
            one.name
            for one in self.containers.values()
            if one.image_id == image_id or any(point.name == image_id for point in one.mounts)
        ]

    def told_name(self, id: str) -> str:
        """What a person knows a container by: ``container shop-web-1``."""
        one = self.containers.get(id)
        return f"container {one.name}" if one else f"container {id[:12]}"

    def allied(self, id: str, other: str) -> bool:
        """Whether two containers are replicas of one service, which may share a host port."""
        one, two = self.containers.get(id), self.containers.get(other)
        return one is not None and two is not None and balancing.peers(one, two)

    # --- writing ------------------------------------------------------------------

    async def save(self, one: Container) -> None:
        """Keeps a container's record; does nothing for one that was removed meanwhile."""
        self.generation += 1
        if one.id in self.containers:
            self.revisions[one.id] += 1
            await self.store.put("container", one.id, one)

    def attributes(self, one: Container) -> dict[str, str]:
        """Attributes of a container's events."""
        return {**(one.request.labels or {}), "image": one.image_ref, "name": one.name}

    def emit(self, one: Container, action: str, **more: object) -> None:
        """An event of a container."""
        self.generation += 1
        if one.id in self.containers:
            self.revisions[one.id] += 1
        else:
            self.revisions.pop(one.id, None)
        self.events.emit("container", action, one.id, {**self.attributes(one), **more})

    def spawn(self, one: Container, work: Awaitable[None], name: str) -> None:
        """A task owned by a container; it ends with the engine, its errors are logged."""
        live = self.live[one.id]

        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except GemelError as error:
                log.warning("%s of %s: %s", name, one.name, error)
            except Exception:
                log.exception("%s of %s", name, one.name)

        task = asyncio.get_running_loop().create_task(guarded(), name=f"{name} {one.name}")
        live.tasks.add(task)
        self._tasks.add(task)
        task.add_done_callback(live.tasks.discard)
        task.add_done_callback(self._tasks.discard)

    async def close_tasks(self) -> None:
        """Ends every task and waits for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the whole of what the network is to hold -----------------------------------

    def endpoints(self, *, stand_ins: bool = True) -> list[Endpoint]:
        """Every running container's endpoints with their names, and what stands in for others."""
        result = []
        for one in self.containers.values():
            if not one.state.running:
                continue
            ready = one.state.health in ("", "healthy") and not one.state.held
            host = one.request.host_config
            for end in one.endpoints:
                names = [one.name, one.id[:12], *(end.settings.aliases or [])]
                names += [one.request.hostname] if one.request.hostname else []
                result.append(
                    Endpoint(
                        network_id=end.network_id,
                        instance_id=one.id,
                        address=end.address,
                        mac=end.mac,
                        names=tuple(dict.fromkeys(names)),
                        ready=ready,
                        dns=tuple(host.dns or []) if host else (),
                        links=self._links(end),
                    )
                )
        if stand_ins and self.stand_ins:
            taken = {(end.network_id, name) for end in result for name in end.names}
            result += [
                end
                for more in self.stand_ins
                for end in more()
                if not any((end.network_id, name) in taken for name in end.names)
            ]
        return result

    def _links(self, end: EndpointRecord) -> tuple[tuple[str, str], ...]:
        """``other:alias`` of a place on a network as (alias, the other's name)."""
        found = []
        for link in end.settings.links or []:
            ref, _, alias = link.partition(":")
            with contextlib.suppress(NotFound, Conflict):
                other = self.container(ref).name
                found.append((alias.rpartition("/")[2] or other, other))
        return tuple(found)

    def published(self) -> list[PublishedPort]:
        """Every running container's published ports."""
        result = []
        for one in self.containers.values():
            ends = [e for e in one.endpoints if e.address]
            # an internal network has no way in either, but from the host itself
            inner = {network.id for network in self.networks.values() if network.internal}
            end = next((e for e in ends if e.network_id not in inner), next(iter(ends), None))
            if end is None or not one.state.running:
                continue
            network = self.networks.get(end.network_id)
            for bound in one.bindings if not one.state.held else ():
                result.append(
                    PublishedPort(
                        host_ip=bound.host_ip,
                        host_port=bound.host_port,
                        protocol=bound.protocol,
                        address=end.address,
                        port=bound.port,
                        instance_id=one.id,
                        bridge=network.bridge if network else "",
                    )
                )
        return result

    def addresses_used(self, network: NetworkInfo) -> set[str]:
        """Addresses of a network that are somebody's, or promised to somebody."""
        used = {
            end.address
            for one in self.containers.values()
            for end in one.endpoints
            if end.network_id == network.id
        }
        used |= {one for key, one in self.virtual.items() if key[0] == network.id}
        used |= {address for net, address in self.promised if net == network.id}
        return used | set(network.aux.values())

    def network_changed(self) -> None:
        """Tells those who look at the network."""
        for observer in self.observers:
            observer()

    async def _names(self) -> None:
        self.network_changed()
        balanced = await balancing.refresh(self)
        await self.net.set_endpoints(self.endpoints(), list(self.networks.values()), balanced)

    async def _ports(self) -> None:
        await self.net.publish(self.published(), list(self.networks.values()))

    @contextlib.asynccontextmanager
    async def locked(self, one: Container) -> AsyncIterator[Live]:
        """Holds a container's lock. Raises NotFound if it was removed while waiting."""
        live = self.live[one.id]
        async with live.lock:
            if one.id not in self.containers:
                raise NotFound(f"No such container: {one.name}")
            yield live
