"""From an instance's specification to a machine and what its relay is told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gemel.errors import Failed, InvalidInput, NotFound, Unavailable, Unsupported
from gemel.host import cgroups, memfile
from gemel.model.instance import InstanceSpec, MountKind
from gemel.model.paths import Paths
from gemel.runtime.microvm import disks, setup
from gemel.runtime.microvm.cmdline import kernel_command_line
from gemel.runtime.microvm.machine import (
    MIB,
    Job,
    Limits,
    Machine,
    Nic,
    check,
    guest_cpus,
    guest_memory,
)
from gemel.runtime.microvm.tools import Tools

#: Each VM's processes have a user of their own, so one VMM can do nothing to another.
FIRST_USER = 0x70000000


async def machine(paths: Paths, tools: Tools, kvm: bool, spec: InstanceSpec) -> Machine:
    """The hardware for ``spec``. Raises InvalidInput, NotFound, Unavailable, Unsupported."""
    kinds = await asyncio.to_thread(_kinds, spec)
    shares = setup.shares(spec, kinds)
    if shares and tools.file_server is None:
        raise Unavailable(
            "bind mounts and volumes of micro VMs need virtiofsd, which is not installed",
            resolution="apt-get install virtiofsd (Debian 12: qemu-system-common)",
        )
    made = Machine(
        qemu=tools.qemu,
        kvm=kvm,
        memory=guest_memory(spec.resources.memory, kvm),
        cpus=guest_cpus(spec.resources.cpus, kvm, os.cpu_count() or 1),
        kernel=tools.kernel.vmlinux,
        initrd=tools.initrd,
        command_line=kernel_command_line(kvm, tools.tsc_khz),
        disks=setup.disks(spec, await disks.ensure_layer(paths, spec.layer)),
        nics=tuple(Nic(nic.host, nic.mac) for nic in spec.network.interfaces),
        shares=shares,
        volumes=setup.volumes(spec, await disks.ensure_volumes(paths, spec)),
    )
    check(made)
    _check_memory(made.memory)
    return made


def _check_memory(needed: int) -> None:
    """Raises InvalidInput for a guest that is bigger than the machine it is to run on."""
    has = memfile.total()
    if has and needed > has:
        raise InvalidInput(
            f"a micro VM of {needed // MIB} MiB does not fit a machine of {has // MIB} MiB",
            details="its memory is what the service may use (mem_limit, --memory) and its kernel's",
            resolution="give it a smaller limit, or none (256 MiB; with KVM 512 MiB), or use"
            " runtime: container",
        )


async def job(tools: Tools, limits: Limits, spec: InstanceSpec, folder: Path, group: str) -> Job:
    """What the relay is told; makes the control group. Raises Failed, InvalidInput."""
    kinds = await asyncio.to_thread(_kinds, spec)
    contents = await asyncio.to_thread(_contents, spec)
    config = setup.config_frames(spec, kinds, contents)
    start = setup.start_frames(spec)
    entered = await asyncio.to_thread(cgroups.make, group, cpus=spec.resources.cpus)
    return Job(
        folder=folder,
        log=spec.log,
        log_size=spec.log_size,
        user=FIRST_USER + int(spec.id[:6], 16),
        cgroups=tuple(entered),
        config=config,
        start=start,
        limits=limits,
        file_server=tools.file_server,
        discard=tools.discard,
    )


def _kinds(spec: InstanceSpec) -> dict[Path, bool]:
    """Whether each bind's source is a folder. Raises NotFound, Unsupported."""
    kinds: dict[Path, bool] = {}
    for mount in spec.mounts:
        if mount.kind is not MountKind.BIND or mount.source is None or mount.block:
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
