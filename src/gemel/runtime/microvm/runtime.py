"""Micro VMs by QEMU's microvm machine: base.Runtime."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal as signals
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from gemel.errors import Conflict, Failed, NotFound, Unavailable, Unsupported
from gemel.host import cgroups, files, memory
from gemel.model.instance import (
    Capabilities,
    Exit,
    InstanceSpec,
    MountKind,
    Process,
    Resources,
    RuntimeName,
    Security,
    Usage,
)
from gemel.model.paths import Paths
from gemel.runtime import base
from gemel.runtime.microvm import archive, channel, disks, listing, probe, relay, setup
from gemel.runtime.microvm.cmdline import kernel_command_line
from gemel.runtime.microvm.machine import (
    Job,
    Limits,
    Machine,
    Nic,
    check,
    guest_cpus,
    guest_memory,
)
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
from gemel.runtime.microvm.tools import Tools, find_tools

log = logging.getLogger("gemel.microvm")

#: Each VM's processes have a user of their own, so one VMM can do nothing to another.
FIRST_USER = 0x70000000


class MicroVmRuntime:
    """base.Runtime for micro VMs. All that it must know of a running one is in its run folder."""

    name = RuntimeName.MICROVM
    capabilities = Capabilities(
        host_network=False,
        shared_namespaces=False,
        devices=False,
        live_update=False,
        privileged=True,
        pause=True,
        shares_kernel=False,
    )

    def __init__(self, paths: Paths, limits: Limits | None = None) -> None:
        self._paths = paths
        self._limits = limits or Limits()
        self._tools: asyncio.Task[Tools] | None = None
        self._verdict: asyncio.Task[probe.Verdict] | None = None
        self._watches: dict[str, asyncio.Task[Exit]] = {}
        self._specs: dict[str, InstanceSpec] = {}
        self._early: dict[str, list[channel.Session]] = {}

    async def prepare(self) -> None:
        """Makes folders. Tools are looked for when the first micro VM starts."""
        files.folder(self._paths.root / "microvm")
        files.folder(self._paths.run / "instances")

    async def close(self) -> None:
        """Lets go of watchers; the VMs go on."""
        tasks = [*self._watches.values(), *filter(None, (self._tools, self._verdict))]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def tools(self) -> Tools:
        """Programs, kernel and initrd; looked for once, again after a failure."""
        if self._tools is None or (self._tools.done() and _failed(self._tools)):
            self._tools = asyncio.create_task(
                find_tools(self._paths, lambda line: log.info("%s", line))
            )
        return await asyncio.shield(self._tools)

    async def verdict(self) -> probe.Verdict:
        """KVM or emulation, and why; probed once."""
        tools = await self.tools()
        if self._verdict is None or (self._verdict.done() and _failed(self._verdict)):
            self._verdict = asyncio.create_task(probe.accelerator(self._paths, tools))
        return await asyncio.shield(self._verdict)

    def _folder(self, id: str) -> Path:
        return self._paths.instance_run(id)

    def _cgroup(self, id: str) -> str:
        return f"{self._paths.cgroup}/{id}"

    async def create(self, spec: InstanceSpec) -> None:
        """Makes the instance's disk."""
        await disks.ensure_layer(self._paths, spec.layer)

    async def start(self, spec: InstanceSpec) -> int:
        """Boots a VM and starts the service in it; the VMM's pid."""
        folder = self._folder(spec.id)
        if relay.read_pids(folder) and await self._runs(folder):
            raise Conflict("it runs already")
        early: list[channel.Session] = []
        try:
            machine = await self._machine(spec)
            await self._clear(spec.id)
            files.folder(folder)
            files.folder(spec.log.parent)
            job = await self._job(spec, machine, folder)
            tools = await self.tools()
            early = [s for s in self._early.pop(spec.id, []) if not s.closed]
            job = msgspec.structs.replace(job, attached=len(early))
            pid = await relay.launch(tools.relay, machine, job, lambda: _attach_all(folder, early))
        except BaseException:
            for stream in [*early, *self._early.pop(spec.id, [])]:
                await stream.close()
            await asyncio.shield(self._clear(spec.id))
            raise
        self._watch(spec)
        return pid

    async def _machine(self, spec: InstanceSpec) -> Machine:
        tools = await self.tools()
        kvm = (await self.verdict()).usable_kvm
        is_folder = await asyncio.to_thread(_kinds, spec)
        shares = setup.shares(spec, is_folder)
        if shares and tools.file_server is None:
            raise Unavailable(
                "bind mounts and volumes of micro VMs need virtiofsd, which is not installed",
                resolution="apt-get install virtiofsd (Debian 12: qemu-system-common)",
            )
        machine = Machine(
            qemu=tools.qemu,
            kvm=kvm,
            memory=guest_memory(spec.resources.memory, kvm),
            cpus=guest_cpus(spec.resources.cpus, kvm, os.cpu_count() or 1),
            kernel=tools.kernel.vmlinux,
            initrd=tools.initrd,
            command_line=kernel_command_line(kvm, tools.tsc_khz),
            disks=setup.disks(spec, await disks.ensure_layer(self._paths, spec.layer)),
            nics=tuple(Nic(nic.host, nic.mac) for nic in spec.network.interfaces),
            shares=shares,
        )
        check(machine)
        return machine

    async def _job(self, spec: InstanceSpec, machine: Machine, folder: Path) -> Job:
        is_folder = await asyncio.to_thread(_kinds, spec)
        contents = await asyncio.to_thread(_contents, spec)
        cpus = spec.resources.cpus
        group = await asyncio.to_thread(cgroups.make, self._cgroup(spec.id), cpus=cpus)
        return Job(
            folder=folder,
            log=spec.log,
            log_size=spec.log_size,
            user=FIRST_USER + int(spec.id[:6], 16),
            cgroups=tuple(group),
            config=setup.config_frames(spec, is_folder, contents),
            start=setup.start_frames(spec),
            limits=self._limits,
            file_server=(await self.tools()).file_server,
        )

    async def _runs(self, folder: Path) -> bool:
        try:
            _, writer = await channel.connect(folder)
        except NotFound:
            return False
        writer.close()
        return True

    def _watch(self, spec: InstanceSpec) -> None:
        self._specs[spec.id] = spec
        self._watches[spec.id] = asyncio.create_task(self._follow(self._folder(spec.id)))

    async def _follow(self, folder: Path) -> Exit:
        await relay.ended(folder)
        return await asyncio.to_thread(relay.read_exit, folder)

    async def adopt(self, spec: InstanceSpec) -> bool:
        """Takes up a VM whose relay still runs, or else the news of its end."""
        folder = self._folder(spec.id)
        alive = relay.read_pids(folder) is not None and await self._runs(folder)
        if alive or folder.exists():
            self._watch(spec)
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
        await asyncio.to_thread(self._clear_now, id)

    def _clear_now(self, id: str) -> None:
        group = self._cgroup(id)
        # a relay that has ended its VM may still hand its last output to slow readers
        end = time.monotonic() + 6
        while cgroups.processes(group) and not (self._folder(id) / "relay.sock").exists():
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        cgroups.empty(group)
        cgroups.remove(group)
        files.remove(self._folder(id))

    async def remove(self, spec: InstanceSpec) -> None:
        """Removes the instance's disk."""
        await asyncio.to_thread(files.remove, spec.layer)

    async def kill(self, id: str, signal: int) -> None:
        """A signal for the first process; SIGKILL ends the VM whole."""
        if signal == signals.SIGKILL:
            frame = encode(CONTROL, channel.KILL)
        else:
            frame = encode(SERVICE, ToGuest.SIGNAL, encode_u32(signal))
        with self._running():
            await channel.tell(self._folder(id), frame)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            raise Conflict("it does not run", details=error.details) from error

    async def pause(self, id: str) -> None:
        """Freezes the service's processes in the guest."""
        await channel.ask(self._folder(id), ToGuest.FREEZE, FromGuest.FROZEN)

    async def resume(self, id: str) -> None:
        """Ends a pause."""
        await channel.ask(self._folder(id), ToGuest.THAW, FromGuest.FROZEN)

    async def attach(self, id: str) -> base.Stream:
        """The service's streams, from now on; before the start too."""
        with contextlib.suppress(NotFound):
            return await channel.attach(self._folder(id))
        stream = channel.Session(SERVICE)
        self._early.setdefault(id, []).append(stream)
        return stream

    async def exec(self, id: str, process: Process) -> base.ExecSession:
        """Starts a further program with the instance's limits on what it may do."""
        security = self._specs[id].security if id in self._specs else Security()
        records = setup.process_records(process, security)
        return await channel.execute(
            self._folder(id), list(message(FIRST_EXEC, ToGuest.EXEC, records))
        )

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Sets the size of the service's terminal."""
        frame = encode(SERVICE, ToGuest.RESIZE, encode_size(rows, columns))
        await channel.tell(self._folder(id), frame)

    async def usage(self, id: str) -> Usage:
        """The guest's own numbers, and what the VM really costs the host."""
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
        )

    async def processes(self, id: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """Processes of the service, as the guest numbers them."""
        listing.columns(ps_args)
        payload = await channel.ask(self._folder(id), ToGuest.PROCESSES, FromGuest.PROCESSES)
        return listing.table(decode_processes(payload), ps_args, time.time())

    async def update(self, id: str, resources: Resources) -> None:
        """Not while it runs: a VM's memory is fixed when it boots."""
        raise Unsupported(
            "the limits of a running micro VM cannot be changed",
            resolution="create it anew with other limits, or use runtime: container",
        )

    async def read_archive(
        self, spec: InstanceSpec, path: str, running: bool
    ) -> AsyncIterator[bytes]:
        """By a tar inside the guest."""
        _must_run(running)
        async for piece in archive.read(self._folder(spec.id), path):
            yield piece

    async def write_archive(
        self, spec: InstanceSpec, path: str, tar: AsyncIterator[bytes], running: bool
    ) -> None:
        """By a tar inside the guest."""
        _must_run(running)
        await archive.write(self._folder(spec.id), path, tar)

    async def stat_path(self, spec: InstanceSpec, path: str, running: bool) -> base.PathStat:
        """By a stat inside the guest."""
        _must_run(running)
        return await archive.stat(self._folder(spec.id), path)


async def _attach_all(folder: Path, streams: list[channel.Session]) -> None:
    await asyncio.gather(*(stream.open(folder, channel.ATTACH_FRAMES) for stream in streams))


def _must_run(running: bool) -> None:
    if not running:
        raise Unsupported(
            "files of a stopped micro VM cannot be reached",
            details="its disk was written by its guest, and the host never mounts that",
            resolution="start it first, or keep the files in a volume",
        )


def _failed(task: asyncio.Task[object]) -> bool:
    return task.cancelled() or task.exception() is not None


def _kinds(spec: InstanceSpec) -> dict[Path, bool]:
    """Whether each bind's source is a folder. Raises NotFound, Unsupported."""
    kinds: dict[Path, bool] = {}
    for mount in spec.mounts:
        if mount.kind is not MountKind.BIND or mount.source is None:
            continue
        if mount.source.is_dir():
            kinds[mount.source] = True
        elif mount.source.is_file():
            kinds[mount.source] = False
        elif mount.source.exists():
            raise Unsupported(
                f"{mount.source} cannot be bound into a micro VM",
                details="it is a socket, a pipe or a device of the host",
                resolution="use runtime: container for this service",
            )
        else:
            raise NotFound(f"the bind mount's source {mount.source} does not exist")
    return kinds


def _contents(spec: InstanceSpec) -> dict[Path, bytes]:
    try:
        return {file.source: file.source.read_bytes() for file in spec.files}
    except OSError as error:
        raise Failed("a file for the instance cannot be read", details=str(error)) from error
