"""How a micro VM comes up: by the best of the ways that are open to it.

From the quickest to the slowest: a copy of a running service (warm.py), a VM that has
stood by (standby.py), a clone of a template (templates.py), a cold boot. Why it was none
better is in the file ``boot`` of the instance's run folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from gemel.errors import GemelError
from gemel.host import files
from gemel.model.instance import InstanceSpec
from gemel.model.paths import Paths
from gemel.runtime.microvm import build, channel, disks, idle, relay
from gemel.runtime.microvm.kernels import Kernel
from gemel.runtime.microvm.machine import Copy, Guest, Job, Limits, Machine, why_no_clone
from gemel.runtime.microvm.machinery import Machinery
from gemel.runtime.microvm.standby import Standbys
from gemel.runtime.microvm.templates import RETRY, Kind, Templates, kind_of
from gemel.runtime.microvm.tools import Tools
from gemel.runtime.microvm.warm import LABEL as SNAPSHOT_LABEL
from gemel.runtime.microvm.warm import Warm

#: A service's label that has it started in a VM of its own from the beginning: ``off``.
STANDBY_LABEL = "gemel.standby"
#: VMs that come up at once, for each of the host's CPUs.
BOOTS_PER_CPU = 2


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that is to come up.

    streams: who is attached to it. join: who has come since it was last asked.
    """

    spec: InstanceSpec
    tools: Tools
    machine: Machine
    folder: Path
    group: str
    streams: list[channel.Session]
    join: Callable[[], list[channel.Session]]

    async def attach_all(self) -> None:
        """Opens the streams, once the instance's relay can be connected to."""
        frames = channel.ATTACH_FRAMES
        await asyncio.gather(*(stream.open(self.folder, frames) for stream in self.streams))


class Boots:
    """Chooses among the ways, and falls back from one to the next."""

    def __init__(self, paths: Paths, limits: Limits, machinery: Machinery) -> None:
        self._paths = paths
        self._limits = limits
        self._machinery = machinery
        # more at once are no faster, and each is slow then: some miss their deadlines
        self._turn = asyncio.Semaphore(BOOTS_PER_CPU * (os.cpu_count() or 1))
        self._ahead: set[asyncio.Task[None]] = set()
        self._not_plugged = (0.0, "")
        self.templates = Templates(paths, limits)
        self.standbys = Standbys(paths, limits, self.templates, self._turn.locked)
        self.warm = Warm(paths)

    async def sweep(self) -> None:
        """Ends what an earlier engine left."""
        await self.standbys.sweep()
        await self.templates.sweep()

    async def close(self) -> None:
        """Gives up what is being made ahead; the instances' VMs go on."""
        tasks = list(self._ahead)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.standbys.close()
        await self.templates.close()
        await self.warm.close()

    def prepare(self, spec: InstanceSpec) -> None:
        """Begins to make what the instance will be started from, if there is none."""
        if _why_cold(spec) is None:
            task = asyncio.create_task(self._make_ahead(spec))
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)

    async def _make_ahead(self, spec: InstanceSpec) -> None:
        """What goes wrong here is told when the instance starts."""
        with contextlib.suppress(GemelError, OSError):
            tools, kvm = await self._machinery.both()
            machine = await build.machine(self._paths, tools, kvm, spec)
            if why_no_clone(machine) is None:
                kind = await asyncio.to_thread(kind_of, tools, machine)
                self.templates.prepare(tools, machine, kind)
                if _may_stand_by(spec):
                    self.standbys.want(tools, machine, kind)

    def keep_only(self, kernel: Kernel) -> None:
        """Forgets what was booted with another kernel."""
        for kind in self.templates.kinds:
            if all(path != str(kernel.vmlinux) for path, *_ in kind.made_from):
                self.templates.drop(kind)
        self.standbys.drop_all()

    async def boot(self, start: Start) -> int:
        """Starts the relay, with a snapshot or a template where there is one; the VMM's pid.

        Raises what relay.launch does.
        """
        spec = start.spec
        unfit = await self.warm.note(spec)
        if self.warm.takes_part(spec.id) and _why_cold(spec) is None:
            kind = await asyncio.to_thread(kind_of, start.tools, start.machine)
            async with self.warm.borrow(spec, kind) as found:
                if not isinstance(found, str):
                    return await self._copy(start, *found)
            unfit = found
            source = msgspec.structs.replace(start.machine, source=True)
            start = msgspec.structs.replace(start, machine=source)
        async with self._template(start) as (kind, guest, reason), self._turn:
            pid = None
            if guest is not None:
                pid = await self._take_over(start, guest, kind)
            if pid is None:
                pid = await self._launch(start, guest)
        self.standbys.started()
        if guest is None:
            files.write(start.folder / "boot", f"cold {reason}\n".encode())
        else:
            await self._look_back(start, kind, unfit)
        return pid

    async def _copy(self, start: Start, guest: Guest, copy: Copy) -> int:
        """A warm replica; if that fails the relay boots it cold, and says why."""
        async with self._turn:
            pid = await self._launch(start, guest, copy)
        word, why = await asyncio.to_thread(relay.read_boot, start.folder)
        if word != "warm":
            self.warm.failed(start.spec.id, why)
        return pid

    @contextlib.asynccontextmanager
    async def _template(self, start: Start) -> AsyncIterator[tuple[Kind, Guest | None, str]]:
        """What to clone while the block runs, or None and why the VM boots cold."""
        tools, machine = start.tools, start.machine
        kind = await asyncio.to_thread(kind_of, tools, machine)
        reason = _why_cold(start.spec) or why_no_clone(machine)
        at, refused = self._not_plugged
        if refused and (machine.shares or machine.volumes) and time.monotonic() - at < RETRY:
            reason = reason or refused
        if reason is not None:
            yield kind, None, reason
            return
        async with self.templates.borrow(tools, machine, kind) as (guest, why):
            yield kind, guest, why

    async def _take_over(self, start: Start, guest: Guest, kind: Kind) -> int | None:
        """Starts it in a VM that stands by; None if there is none, or it fails."""
        if not _may_stand_by(start.spec):
            return None
        one = self.standbys.take(kind, start.machine)
        self.standbys.want(start.tools, start.machine, kind)
        if one is None:
            return None
        return await one.start(start.machine, await self._job(start, guest), start.attach_all)

    async def _launch(self, start: Start, guest: Guest | None, copy: Copy | None = None) -> int:
        """Starts a relay of its own for it."""
        job = msgspec.structs.replace(await self._job(start, guest), copy=copy)
        return await relay.launch(start.tools.relay, start.machine, job, start.attach_all)

    async def _job(self, start: Start, guest: Guest | None) -> Job:
        """What its relay is told, in a folder where nothing else is."""
        spec, folder = start.spec, start.folder
        await asyncio.to_thread(idle.clear, folder, start.group)
        files.folder(folder)
        files.folder(spec.log.parent)
        disks.use(spec.layer)
        job = await build.job(start.tools, self._limits, spec, folder, start.group)
        start.streams.extend(stream for stream in start.join() if not stream.closed)
        return msgspec.structs.replace(job, attached=len(start.streams), guest=guest)

    async def _look_back(self, start: Start, kind: Kind, unfit: str) -> None:
        """After a start from a template: whether it was one, and what follows from it.

        unfit: why it is no warm replica, where those are wanted; empty otherwise.
        """
        word, why = await asyncio.to_thread(relay.read_boot, start.folder)
        if why.startswith(relay.NOT_PLUGGED):
            self._not_plugged = (time.monotonic(), why)
        elif word != "cloned":  # a cold boot has worked, so it was the template's fault
            self.templates.drop(kind, why)
        else:
            if start.machine.source:
                self.warm.started(start.spec.id, kind)
            if unfit:
                files.write(start.folder / "boot", f"cloned {unfit}\n".encode())


def _why_cold(spec: InstanceSpec) -> str | None:
    """Who has asked that this instance is not cloned, if anybody has."""
    if os.environ.get("GEMEL_MICROVM_CLONES", "1") == "0":
        return "clones are switched off (GEMEL_MICROVM_CLONES=0)"
    if dict(spec.labels).get(SNAPSHOT_LABEL) == "off":
        return "its snapshot is off"
    return None


def _may_stand_by(spec: InstanceSpec) -> bool:
    return dict(spec.labels).get(STANDBY_LABEL) != "off"
