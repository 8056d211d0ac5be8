"""VMs without their service, for the files of instances that do not run.

The host never mounts a disk that a guest has written. So the files of a stopped
instance are reached through a VM with its disk and nothing else, which ends by
itself some seconds after it was last used.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from gemel.errors import GemelError, NotFound
from gemel.host import cgroups, files
from gemel.model.instance import InstanceSpec, Network
from gemel.model.paths import Paths
from gemel.runtime.microvm import build, channel, disks, relay
from gemel.runtime.microvm.machine import Limits
from gemel.runtime.microvm.protocol import CONTROL, encode
from gemel.runtime.microvm.tools import Tools


def clear(folder: Path, group: str) -> None:
    """Ends what is in a VM's control group and removes what it left. Blocks. Raises Failed."""
    # a relay that has ended its VM may still hand its last output to slow readers
    end = time.monotonic() + 6
    while cgroups.processes(group) and not (folder / "relay.sock").exists():
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    cgroups.empty(group)
    cgroups.remove(group)
    files.remove(folder)


async def runs(folder: Path) -> bool:
    """Whether a relay answers there."""
    try:
        _, writer = await channel.connect(folder)
    except NotFound:
        return False
    writer.close()
    return True


class IdleVms:
    """Boots and ends them; one for an instance at a time."""

    def __init__(
        self, paths: Paths, limits: Limits, machinery: Callable[[], Awaitable[tuple[Tools, bool]]]
    ) -> None:
        """machinery: gives the tools, and whether KVM is used."""
        self._paths = paths
        self._limits = limits
        self._machinery = machinery
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def _folder(self, id: str) -> Path:
        return self._paths.run / "idle" / id

    def _group(self, id: str) -> str:
        return f"{self._paths.cgroup}/idle-{id}"

    @contextlib.asynccontextmanager
    async def open(self, spec: InstanceSpec) -> AsyncIterator[Path]:
        """A VM's run folder, for as long as the block runs. Raises what a start raises."""
        folder = self._folder(spec.id)
        async with self._locks.setdefault(spec.id, asyncio.Lock()):
            if not await runs(folder):
                await self.end(spec.id)
                await self._boot(spec, folder)
            _, held = await channel.connect(folder)  # while it is there, the VM stays
        try:
            yield folder
        finally:
            held.close()

    async def _boot(self, spec: InstanceSpec, folder: Path) -> None:
        tools, kvm = await self._machinery()
        bare = msgspec.structs.replace(spec, network=Network(), log=folder / "log", log_size=0)
        machine = await build.machine(self._paths, tools, kvm, bare)
        try:
            disks.use(spec.layer)
            files.folder(folder)
            job = await build.job(tools, self._limits, bare, folder, self._group(spec.id))
            job = msgspec.structs.replace(job, idle=True)
            await relay.launch(tools.relay, machine, job)
        except BaseException:
            await asyncio.shield(self._clear(spec.id))
            raise
        self._tasks[spec.id] = asyncio.create_task(self._tidy(spec.id))

    async def _tidy(self, id: str) -> None:
        await relay.ended(self._folder(id))
        await self._clear(id)

    async def _clear(self, id: str) -> None:
        await asyncio.to_thread(clear, self._folder(id), self._group(id))

    async def end(self, id: str) -> None:
        """Ends the instance's idle VM if there is one, its disk synced."""
        folder = self._folder(id)
        task = self._tasks.pop(id, None)
        if task is None and not folder.exists():
            return
        with contextlib.suppress(GemelError, TimeoutError):
            await channel.tell(folder, encode(CONTROL, channel.KILL))
            async with asyncio.timeout(relay.END_TIMEOUT):
                await relay.ended(folder)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._clear(id)

    async def close(self) -> None:
        """Ends them all."""
        for id in list(self._tasks):
            await self.end(id)

    async def sweep(self) -> None:
        """Ends what an earlier engine left."""
        with contextlib.suppress(FileNotFoundError):
            for folder in (self._paths.run / "idle").iterdir():
                await self.end(folder.name)
