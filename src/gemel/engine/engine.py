"""The engine, put together: opens its state, takes up what runs, offers itself to the API."""

from __future__ import annotations

import asyncio
import logging

from gemel.engine import balancing
from gemel.engine.comparing.service import Comparing
from gemel.engine.containers import Containers
from gemel.engine.core import Core, Live
from gemel.engine.dashboard import Dashboard
from gemel.engine.debugging import Debugging
from gemel.engine.execs import Execs
from gemel.engine.faulting import Faults
from gemel.engine.faultmarks import Marks
from gemel.engine.images import Images
from gemel.engine.lifecycle import Lifecycle
from gemel.engine.networks import Networks
from gemel.engine.observing import Observing
from gemel.engine.records import Container, Volume
from gemel.engine.replays import Replays
from gemel.engine.reporting.reports import Reports
from gemel.engine.system import System
from gemel.engine.tracing import Tracing
from gemel.engine.volumes import Volumes
from gemel.errors import GemelError
from gemel.host import files
from gemel.image.store import ImageStore
from gemel.model.docker import HostConfig, RestartPolicy
from gemel.model.instance import RuntimeName
from gemel.model.network import NetworkInfo
from gemel.model.paths import Paths
from gemel.net.manager import NetworkManager
from gemel.runtime.base import Runtime
from gemel.runtime.container.runtime import ContainerRuntime
from gemel.runtime.microvm.runtime import MicroVmRuntime

log = logging.getLogger("gemel.engine")


class Engine:
    """See facade.Engine. ``stopped`` is set when a client asked the engine to end."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.stopped = asyncio.Event()
        self.lifecycle = Lifecycle(core)
        self.containers = Containers(core, self.lifecycle)
        self.comparing = Comparing(core, self.containers)
        self.execs = Execs(core)
        self.images = Images(core)
        self.networks = Networks(core)
        self.volumes = Volumes(core)
        marks = Marks()
        self.observing = Observing(core, marks)
        self.tracing = Tracing(core, self.observing)
        self.faults = Faults(core, marks)
        self.replays = Replays(core)
        self.debugging = Debugging(core, self.lifecycle)
        self.reports = Reports(core, self.observing.traffic)
        self.dashboard = Dashboard(core)
        self.system = System(core, self.stopped.set)

    @classmethod
    async def open(cls, paths: Paths) -> Engine:
        """Starts the engine: reads its state and takes up what an earlier one left running.

        Raises GemelError if a part of the host that it needs is missing.
        """
        files.folder(paths.root, 0o711)
        files.folder(paths.run, 0o711)
        runtimes: dict[RuntimeName, Runtime] = {
            RuntimeName.CONTAINER: ContainerRuntime(paths),
            RuntimeName.MICROVM: MicroVmRuntime(paths),
        }
        users: list[Core] = []
        images = ImageStore(paths, in_use=lambda id: users[0].users_of_image(id) if users else [])
        net = NetworkManager(
            paths,
            describe=lambda id: users[0].told_name(id) if users else id,
            allied=lambda id, other: bool(users) and users[0].allied(id, other),
        )
        core = Core(paths, images, net, runtimes)
        users.append(core)
        engine = cls(core)
        await core.store.open()
        await core.images.prepare()
        for runtime in runtimes.values():
            await runtime.prepare()
        await engine._load()
        engine.tracing.prepare()
        await core.net.prepare(
            list(core.networks.values()),
            core.endpoints(),
            core.published(),
            await balancing.refresh(core),
        )
        await engine.faults.prepare()
        await engine.reports.prepare()
        await engine._adopt()
        await engine.comparing.prepare()
        return engine

    async def _load(self) -> None:
        core = self.core
        for network in await core.store.all("network", NetworkInfo):
            core.networks[network.id] = network
        for volume in await core.store.all("volume", Volume):
            core.volumes[volume.name] = volume
        for one in await core.store.all("container", Container):
            core.containers[one.id] = one
            core.live[one.id] = Live()
        await balancing.load(core)

    async def _adopt(self) -> None:
        core = self.core
        was_up = list(core.containers.values())
        for one in was_up:
            try:
                await self.lifecycle.adopt(one)
            except GemelError as error:
                log.warning("taking up %s: %s", one.name, error)
        for one in was_up:
            policy = (one.request.host_config or HostConfig()).restart_policy or RestartPolicy()
            due = policy.name == "always" or (
                policy.name == "unless-stopped" and not one.state.stopped_by_user
            )
            if due and one.state.status == "exited":
                core.spawn(one, self._start_again(one), "start by restart policy")

    async def _start_again(self, one: Container) -> None:
        await self.lifecycle.start(one)

    @property
    def busy(self) -> bool:
        """Whether instances run that outlive the engine."""
        return any(c.state.running for c in self.core.containers.values())

    async def close(self) -> None:
        """Ends the engine; instances go on running."""
        core = self.core
        left = self.busy
        await self.reports.close()
        await self.tracing.close()
        await self.dashboard.close()
        await self.observing.close()
        await self.faults.close()
        await self.replays.close()
        await core.close_tasks()
        await core.rotation.close()
        for runtime in core.runtimes.values():
            await runtime.close()
        await core.net.close(left)
        await core.images.close()
        await core.store.close()
