"""The engine's core over the fake runtime: no root, no network, no image store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from gemel.engine.core import Core, Live
from gemel.engine.lifecycle import Lifecycle
from gemel.engine.records import Container, now
from gemel.image.store import ImageStore
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import RuntimeName
from gemel.model.paths import Paths
from gemel.net.manager import NetworkManager
from tests.fake.runtime import FakeRuntime, World

#: Seconds after which something is stuck.
DEADLINE = 30.0


class _Images:
    """One image, which every id means."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def find(self, ref: str) -> str:
        return ref

    def disk(self, image: str) -> Path:
        return self._paths.images / "fake.sqfs"

    async def rootfs(self, image: str) -> Path:
        return self._paths.images / "rootfs"


class _Network:
    """Remembers who is told of; containers here are on no network."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()

    async def open_namespace(self, id: str) -> Path:
        self.namespaces.add(id)
        return Path("/nowhere")

    async def close_namespace(self, id: str) -> None:
        self.namespaces.discard(id)

    async def set_endpoints(self, *told: object) -> None:
        pass

    async def publish(self, *told: object) -> None:
        pass


class FakeEngine:
    """A core and its lifecycle; another one on the same folders is the engine after a kill -9."""

    def __init__(self, paths: Paths, world: World) -> None:
        self.paths = paths
        self.world = world
        self.network = _Network()
        self._crashed = False
        self.core = Core(
            paths,
            cast(ImageStore, _Images(paths)),
            cast(NetworkManager, self.network),
            {RuntimeName.CONTAINER: FakeRuntime(world)},
        )
        self.lifecycle = Lifecycle(self.core)

    async def open(self) -> None:
        """Reads its state and takes up what runs, as Engine.open does."""
        await self.core.store.open()
        for one in await self.core.store.all("container", Container):
            self.core.containers[one.id] = one
            self.core.live[one.id] = Live()
        for one in list(self.core.containers.values()):
            await self.lifecycle.adopt(one)

    async def make(self, *argv: str, host: HostConfig | None = None, **request: Any) -> Container:
        """A container that is not started."""
        id = secrets.token_hex(32)
        one = Container(
            id=id,
            name=f"test-{id[:8]}",
            created=now(),
            request=CreateRequest(image="fake", host_config=host or HostConfig(), **request),
            image_id="sha256:" + "0" * 64,
            image_ref="fake",
            runtime=RuntimeName.CONTAINER,
            argv=list(argv),
        )
        self.core.containers[id] = one
        self.core.live[id] = Live()
        await self.core.save(one)
        return one

    async def run(self, *argv: str, host: HostConfig | None = None, **request: Any) -> Container:
        """A container that is started."""
        one = await self.make(*argv, host=host, **request)
        await self.lifecycle.start(one)
        return one

    def alive(self, one: Container) -> bool:
        """Whether it runs, as the engine has it and in truth."""
        run = self.world.runs.get(one.id)
        return one.state.running and one.state.pid != 0 and run is not None and not run.ended

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits for a condition."""
        async with asyncio.timeout(DEADLINE):
            while not holds():  # noqa: ASYNC110  what it waits for has no event of its own
                await asyncio.sleep(0.005)

    async def crash(self) -> None:
        """All of the engine that is in memory is gone; instances go on. May be called twice."""
        if self._crashed:
            return
        self._crashed = True
        await asyncio.sleep(0)  # tasks that have just been made begin
        await self.core.close_tasks()
        await self.core.rotation.close()
        await self.core.runtimes[RuntimeName.CONTAINER].close()
        await self.core.store.close()
