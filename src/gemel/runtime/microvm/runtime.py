"""Micro VMs by QEMU's microvm machine: base.Runtime."""

from __future__ import annotations

import asyncio
import contextlib
import signal as signals
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from gemel.errors import Conflict, InvalidInput, NotFound, Unsupported
from gemel.host import cgroups, files, memory, procs
from gemel.model.instance import (
    Capabilities,
    Exit,
    InstanceSpec,
    Process,
    Resources,
    RuntimeName,
    Toolbox,
    Usage,
)
from gemel.model.paths import Paths
from gemel.runtime import base
from gemel.runtime.microvm import (
    build,
    channel,
    debugging,
    disks,
    idle,
    listing,
    probe,
    relay,
    setup,
)
from gemel.runtime.microvm.boots import Boots, Start
from gemel.runtime.microvm.copies import Copies
from gemel.runtime.microvm.idle import IdleVms
from gemel.runtime.microvm.machine import Limits
from gemel.runtime.microvm.machinery import Machinery
from gemel.runtime.microvm.protocol import (
    CONTROL,
    FIRST_EXEC,
    SERVICE,
    FromGuest,
    ToGuest,
    decode_processes,
    decode_usage,
    encode,
    encode_size,
    encode_u32,
    message,
)


class MicroVmRuntime(Copies):
    """base.Runtime for micro VMs. All that it must know of a running one is in its run folder."""

    name = RuntimeName.MICROVM
    capabilities = Capabilities(
        block_volumes=True,
        host_network=False,
        shared_namespaces=False,
        devices=False,
        live_update=False,
        privileged=True,
        pause=True,
        shares_kernel=False,
        debug=True,
    )

    def __init__(self, paths: Paths, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._paths = paths
        self._watches: dict[str, asyncio.Task[Exit]] = {}
        self._specs: dict[str, InstanceSpec] = {}
        self._early: dict[str, list[channel.Session]] = {}
        self._left: set[channel.Session] = set()
        self._debugging = debugging.Debugging()
        self._machinery = Machinery(paths)
        self._idle = IdleVms(paths, limits, self._machinery.both)
        self.boots = Boots(paths, limits, self._machinery)

    async def prepare(self) -> None:
        """Makes folders. Tools are looked for when the first micro VM starts."""
        files.folder(self._paths.root / "microvm")
        files.folder(self._paths.run / "instances")
        await self._idle.sweep()
        await self.boots.sweep()

    async def close(self) -> None:
        """Lets go of watchers; the VMs go on."""
        tasks = list(self._watches.values())
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.boots.close()
        await self._machinery.close()
        await self._debugging.close()
        for session in list(self._left):
            await session.end(hang_up=False)
        await self._idle.close()

    async def verdict(self) -> probe.Verdict:
        """KVM or emulation, and why; probed once."""
        return await self._machinery.verdict()

    async def new_kernel(self) -> None:
        """Has what starts from now on look again for kernel and initrd; templates of others go."""
        self._machinery.forget()
        self.boots.keep_only((await self._machinery.tools()).kernel)

    def _folder(self, id: str) -> Path:
        return self._paths.instance_run(id)

    def _cgroup(self, id: str) -> str:
        return f"{self._paths.cgroup}/{id}"

    async def create(self, spec: InstanceSpec) -> None:
        """Makes the instance's disk, and begins with a template for it if there is none."""
        await disks.ensure_layer(self._paths, spec.layer)
        self.boots.prepare(spec)

    def healthy(self, id: str) -> None:
        """Where warm replicas are wanted, a snapshot is taken in the background."""
        self.boots.warm.healthy(id)

    def boot(self, id: str) -> tuple[str, str]:
        """How a running instance came up (``warm``, ``cloned``, ``cold``), and why not better."""
        return relay.read_boot(self._folder(id))

    async def start(self, spec: InstanceSpec) -> int:
        """Boots a VM and starts the service in it; the VMM's pid."""
        folder = self._folder(spec.id)
        if relay.read_pids(folder) and await idle.runs(folder):
            raise Conflict("it runs already")
        early: list[channel.Session] = []
        try:
            await self._idle.end(spec.id)
            tools, kvm = await self._machinery.both()
            machine = await build.machine(self._paths, tools, kvm, spec)
            start = Start(
                spec=spec,
                tools=tools,
                machine=machine,
                folder=folder,
                group=self._cgroup(spec.id),
                streams=early,
                join=lambda: self._early.pop(spec.id, []),
            )
            pid = await self.boots.boot(start)
        except BaseException:
            for stream in [*early, *self._early.pop(spec.id, [])]:
                await stream.close()
            await asyncio.shield(self._clear(spec.id))
            raise
        self._watch(spec)
        return pid

    def _watch(self, spec: InstanceSpec) -> None:
        self._specs[spec.id] = spec
        self._watches[spec.id] = asyncio.create_task(self._follow(self._folder(spec.id)))

    async def _follow(self, folder: Path) -> Exit:
        await relay.ended(folder)
        return await asyncio.to_thread(relay.read_exit, folder)

    async def adopt(self, spec: InstanceSpec) -> bool:
        """Takes up a VM whose relay still runs, or else the news of its end."""
        folder = self._folder(spec.id)
        alive = relay.read_pids(folder) is not None and await idle.runs(folder)
        if alive or folder.exists():
            self._watch(spec)
            self.boots.warm.adopt(spec)
        return alive

    async def wait(self, id: str) -> Exit:
        """Waits for the end. Raises NotFound for what was neither started nor adopted."""
        task = self._watches.get(id)
        if task is None:
            raise NotFound("it was never started")
        return await asyncio.shield(task)

    async def cleanup(self, id: str) -> None:
        """Removes what a run leaves; the disk and the log stay."""
        task = self._watches.pop(id, None)
        self._specs.pop(id, None)
        if task and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._clear(id)

    async def _clear(self, id: str) -> None:
        await asyncio.to_thread(idle.clear, self._folder(id), self._cgroup(id))

    async def remove(self, spec: InstanceSpec) -> None:
        """Removes the instance's disk."""
        for stream in self._early.pop(spec.id, []):
            await stream.close()
        await self._idle.end(spec.id)
        self.boots.warm.forget(spec.id)
        await asyncio.to_thread(files.remove, spec.layer)

    async def kill(self, id: str, signal: int) -> None:
        """A signal for the first process; SIGKILL ends the VM whole."""
        if not 1 <= signal <= 64:
            raise InvalidInput(f"there is no signal {signal}")
        if signal == signals.SIGKILL:
            frame = encode(CONTROL, channel.KILL)
        else:
            frame = encode(SERVICE, ToGuest.SIGNAL, encode_u32(signal))
        with _running():
            await channel.tell(self._folder(id), frame)

    async def pause(self, id: str) -> None:
        """Freezes the service's processes in the guest. Raises Conflict if it is so already."""
        if self._paused(id).exists():
            raise Conflict("it is paused already")
        async with self.boots.warm.still(id):
            with _running():
                await channel.ask(self._folder(id), ToGuest.FREEZE, FromGuest.FROZEN)
            files.write(self._paused(id), b"")

    async def resume(self, id: str) -> None:
        """Ends a pause. Raises Conflict if there is none."""
        if not self._paused(id).exists():
            raise Conflict("it is not paused")
        with _running():
            await channel.ask(self._folder(id), ToGuest.THAW, FromGuest.FROZEN)
        files.remove(self._paused(id))

    def _paused(self, id: str) -> Path:
        """Is there while it is paused; in the run folder, so that the next engine knows too."""
        return self._folder(id) / "paused"

    async def attach(self, id: str) -> base.Stream:
        """The service's streams, from now on; before the start too."""
        with contextlib.suppress(NotFound):
            return await channel.attach(self._folder(id))
        stream = channel.Session(SERVICE)
        self._early.setdefault(id, []).append(stream)
        return stream

    async def exec(self, id: str, process: Process) -> base.ExecSession:
        """Starts a further program with the instance's limits on what it may do."""
        if self._paused(id).exists():
            raise Conflict("it is paused", resolution="unpause it first")
        spec = self._specs.get(id)
        if spec is None:
            raise Conflict("it does not run")
        records = list(setup.exec_records(spec, process))
        session = channel.Session(FIRST_EXEC, tty=process.tty)
        with _running():
            await session.open(self._folder(id), list(message(FIRST_EXEC, ToGuest.EXEC, records)))
        # closed, it may go on until its program ends; until then it is ours to hold
        self._left.add(session)
        session.on_end(self._left.discard)
        return session

    async def debug(
        self, spec: InstanceSpec, toolbox: Toolbox, process: Process, running: bool
    ) -> base.ExecSession:
        """In the guest; of an instance that does not run, in one booted for its files."""
        if running and self._paused(spec.id).exists():
            raise Conflict("it is paused", resolution="unpause it first")
        async with contextlib.AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self._files(spec, running))
            with _running():
                image = toolbox.root_image
                session = await self._debugging.start(folder, image, process, keep=running)
            # what holds an idle VM goes when the session does
            self._debugging.then(session, stack.pop_all())
        return session

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Sets the size of the service's terminal."""
        frame = encode(SERVICE, ToGuest.RESIZE, encode_size(rows, columns))
        with _running():
            await channel.tell(self._folder(id), frame)

    async def usage(self, id: str) -> Usage:
        """The guest's own numbers, and what the VM really costs the host."""
        with _running():
            payload = await channel.ask(self._folder(id), ToGuest.USAGE, FromGuest.USAGE)
        told = decode_usage(payload)
        pids = await asyncio.to_thread(cgroups.processes, self._cgroup(id))
        prefix = "memory."
        return Usage(
            cpu_ns=told.get("cpu_ns", 0),
            system_ns=told.get("system_ns", 0),
            user_ns=told.get("user_ns", 0),
            memory=told.get("memory", 0),
            memory_peak=told.get("memory_peak", 0),
            memory_limit=told.get("memory_limit", 0) or told.get("guest_total", 0),
            memory_stats={
                key.removeprefix(prefix): value
                for key, value in told.items()
                if key.startswith(prefix)
            },
            pids=told.get("pids", 0),
            pids_limit=told.get("pids_limit", 0),
            read_bytes=told.get("read_bytes", 0),
            write_bytes=told.get("write_bytes", 0),
            true_memory=await asyncio.to_thread(memory.proportional, pids),
            true_cpu_ns=max(0, procs.cpu_ns(pids) - relay.read_spent(self._folder(id))),
        )

    async def processes(self, id: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """Processes of the service, as the guest numbers them."""
        listing.columns(ps_args)
        with _running():
            payload = await channel.ask(self._folder(id), ToGuest.PROCESSES, FromGuest.PROCESSES)
        return listing.table(decode_processes(payload), ps_args, time.time())

    async def update(self, id: str, resources: Resources) -> None:
        """Not while it runs: a VM's memory is fixed when it boots."""
        raise Unsupported(
            "the limits of a running micro VM cannot be changed",
            resolution="create it anew with other limits, or use runtime: container",
        )

    @contextlib.asynccontextmanager
    async def _files(self, spec: InstanceSpec, running: bool) -> AsyncIterator[Path]:
        """Run folder of a VM with the instance's files: its own, or one booted for them."""
        if running:
            with _running():
                yield self._folder(spec.id)
            return
        async with self._idle.open(spec) as folder:
            yield folder


@contextlib.contextmanager
def _running() -> Iterator[None]:
    """What is not there does not run: that is a conflict, as Docker has it."""
    try:
        yield
    except NotFound as error:
        if error.brief != channel.NOT_RUNNING:
            raise
        raise Conflict(error.brief, details=error.details) from error
