"""Recorded answers in the place of services that do not run (facade.Replays).

They are found under the services' names at the bridge's own address, until the network is
removed, the service itself runs, or the engine ends.
"""

from __future__ import annotations

import asyncio

import msgspec

from gemel.engine.core import Core, log
from gemel.engine.facade import Json
from gemel.errors import Conflict, Failed, GemelError, InvalidInput
from gemel.host.child import Child
from gemel.model.network import Endpoint, NetworkInfo
from gemel.model.replay import RecordedService, ReplayRequest
from gemel.observe.replaying.protocol import Order, Told

#: Bytes of recorded bodies at once, and services.
BYTES, SERVICES = 256 << 20, 64


class Replays:
    """One set of answers at a time."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._child = Child("gemel.observe.replaying", "the server of recorded answers")
        self._lock = asyncio.Lock()
        self._wanted = ReplayRequest()
        self._networks: tuple[str, ...] = ()
        core.stand_ins.append(self._endpoints)
        core.observers.append(self._look)
        self._task: asyncio.Task[None] | None = None

    async def begin(self, wanted: ReplayRequest) -> Json:
        """Answers in the place of these services from now on. Raises InvalidInput, NotFound,
        Conflict, Failed."""
        _check(wanted)
        async with self._lock:
            networks = [self.core.network(name) for name in wanted.networks]
            self._check_free(wanted, networks)
            order = Order(tuple(n.gateway for n in networks), tuple(wanted.services))
            told = msgspec.json.decode(
                await self._child.tell(msgspec.json.encode(order)), type=Told
            )
            if told.problems:
                await self._child.close()
                raise Failed("recorded answers cannot be given", details="\n".join(told.problems))
            self._wanted, self._networks = wanted, tuple(n.id for n in networks)
        await self.core.sync_names()
        return self.shown()

    def shown(self) -> Json:
        """What is answered now."""
        return {
            "Project": self._wanted.project,
            "Networks": [
                self.core.networks[id].name for id in self._networks if id in self.core.networks
            ],
            "Services": [
                {"Name": service.name, "Calls": len(service.calls)}
                for service in self._wanted.services
            ],
        }

    async def end(self) -> None:
        """Answers no more. Idempotent."""
        async with self._lock:
            self._wanted, self._networks = ReplayRequest(), ()
            await self._child.close()
        await self.core.sync_names()

    async def close(self) -> None:
        """Ends with the engine."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._child.close()

    def _check_free(self, wanted: ReplayRequest, networks: list[NetworkInfo]) -> None:
        ids = {network.id for network in networks}
        for end in self.core.endpoints(stand_ins=False):
            for service in wanted.services:
                if end.network_id in ids and service.name in end.names:
                    raise Conflict(
                        f"{service.name} runs",
                        details="recorded answers would stand beside its own",
                        resolution=f"gemel stop {service.name}",
                    )

    def _endpoints(self) -> list[Endpoint]:
        """Names that lead to the server; not those of services that run by themselves."""
        made = []
        for id in self._networks:
            network = self.core.networks.get(id)
            if network is None:
                continue
            for service in self._wanted.services:
                made.append(
                    Endpoint(
                        network_id=id,
                        instance_id=f"replay-{service.name}",
                        address=network.gateway,
                        mac=self.core.net.mac_for(network.gateway),
                        names=(service.name, *service.aliases),
                    )
                )
        return made

    def _look(self) -> None:
        """The network has changed: without any of its networks there is nobody to answer."""
        gone = self._networks and not any(id in self.core.networks for id in self._networks)
        if gone and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._let_go(), name="replay")

    async def _let_go(self) -> None:
        try:
            await self.end()
        except GemelError as error:
            log.warning("recorded answers: %s", error)


def _check(wanted: ReplayRequest) -> None:
    if not wanted.networks or not wanted.services:
        raise InvalidInput("recorded answers need a network and a service")
    if len(wanted.services) > SERVICES:
        raise InvalidInput(f"at most {SERVICES} services can be replayed")
    for service in wanted.services:
        _check_service(service)
    size = sum(len(c.body) + len(c.answer) for s in wanted.services for c in s.calls)
    if size > BYTES:
        raise InvalidInput(f"the recorded bodies are larger than {BYTES >> 20} MiB")


def _check_service(service: RecordedService) -> None:
    if not service.name or not service.calls:
        raise InvalidInput(f"nothing is recorded of {service.name or 'a service without a name'}")
    for call in service.calls:
        if not 0 < call.port < 65536 or call.port == 53:
            raise InvalidInput(f"port {call.port} of {service.name} cannot be replayed")
        if not 200 <= call.status <= 599:
            raise InvalidInput(f"{call.status} is no status that {service.name} can answer with")
