"""What the guest is told: CONFIG, START and EXEC records from an instance's specification. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gemel.errors import InvalidInput
from gemel.model.instance import GuestFile, InstanceSpec, Mount, MountKind, Process, Security
from gemel.runtime.container.defaults import (
    ALL_CAPABILITIES,
    CAPABILITIES,
    MASKED_PATHS,
    READONLY_PATHS,
)
from gemel.runtime.microvm.machine import Disk, Share
from gemel.runtime.microvm.protocol import (
    CONTROL,
    MESSAGE_MAX,
    SERVICE,
    Record,
    ToGuest,
    encode_records,
    message,
)
from gemel.runtime.microvm.slots import FIRST, SPARE

ROOT_SERIAL = "root"
LAYER_SERIAL = "layer"


def disks(spec: InstanceSpec, layer: Path) -> tuple[Disk, ...]:
    """The image's read-only disk, and the instance's own."""
    return (Disk(spec.root_image, ROOT_SERIAL), Disk(layer, LAYER_SERIAL, writable=True))


def shares(spec: InstanceSpec, is_folder: Mapping[Path, bool]) -> tuple[Share, ...]:
    """One for each bind mount, in the order in which they are mounted."""
    found = []
    for number, mount in enumerate(_ordered(spec)):
        if mount.kind is not MountKind.BIND or mount.source is None or mount.block:
            continue
        name = "" if is_folder[mount.source] else mount.source.name
        # a volume is changed by services alone; where all is read-only the agent can do nothing
        watched = not mount.volume and not mount.readonly
        found.append(Share(f"share{number}", mount.source, name, mount.readonly, watched))
    return tuple(found)


def volumes(spec: InstanceSpec, paths: Mapping[Path, Path]) -> tuple[Disk, ...]:
    """The disks of block volumes. paths: by the volumes' folders."""
    return tuple(
        Disk(paths[folder], serial, writable=True) for folder, serial in _volume_serials(spec)
    )


def _volume_serials(spec: InstanceSpec) -> list[tuple[Path, str]]:
    """Each block volume's folder once, and its disk's serial."""
    folders = dict.fromkeys(m.source for m in spec.mounts if m.block and m.source is not None)
    return [(folder, f"volume{number}") for number, folder in enumerate(folders)]


def _ordered(spec: InstanceSpec) -> list[Mount]:
    """Parents before what is mounted in them."""
    return sorted(spec.mounts, key=lambda mount: len(Path(mount.target).parts))


def config_records(
    spec: InstanceSpec, is_folder: Mapping[Path, bool], contents: Mapping[Path, bytes]
) -> Iterator[Record]:
    """CONFIG, without time and entropy, which the relay adds at the last moment.

    contents: of the GuestFiles, by their source.
    """
    yield ("hostname", spec.hostname, spec.domainname)
    yield ("machine-id", spec.id[:32])
    yield ("loopback",)
    for nic in spec.network.interfaces:
        route = _switch(nic.default_route)
        yield ("nic", nic.mac, nic.name, nic.address, nic.gateway, str(nic.mtu), route)
    yield ("root", "squashfs", f"serial:{ROOT_SERIAL}")
    yield ("layer", f"serial:{LAYER_SERIAL}")
    if spec.security.readonly_rootfs:
        yield ("readonly-root",)
    yield ("shm", str(spec.resources.shm_size))
    plugged = len(shares(spec, is_folder)) + len(_volume_serials(spec))
    for number in range(min(plugged, SPARE)):
        yield ("slot", str(FIRST + number))
    serials = dict(_volume_serials(spec))
    for number, mount in enumerate(_ordered(spec)):
        if mount.block and mount.source is not None:
            device = f"serial:{serials[mount.source]}"
            readonly = _switch(mount.readonly)
            yield ("volume", device, mount.source.name, mount.target, readonly)
        else:
            yield _mount(number, mount, is_folder)
    for file in spec.files:
        yield _file(file, contents[file.source])
    # memory is promised freely, as on a host with much of it: a VM's is small, and the
    # kernel's guess would refuse what a container gets
    yield ("sysctl", "vm.overcommit_memory", "1")
    for key, value in spec.sysctls:
        yield ("sysctl", key, value)
    yield ("init", _switch(spec.init))


def _switch(value: bool) -> str:
    return "1" if value else "0"


def _mount(number: int, mount: Mount, is_folder: Mapping[Path, bool]) -> Record:
    readonly = _switch(mount.readonly)
    if mount.kind is MountKind.TMPFS:
        options = [option for option in mount.options if option not in ("rw", "ro")]
        if mount.size is not None:
            options.append(f"size={mount.size}")
        if mount.mode is not None:
            options.append(f"mode={mount.mode:o}")
        return ("mount", "tmpfs", "tmpfs", mount.target, readonly, ",".join(options))
    assert mount.source is not None
    if is_folder[mount.source]:
        return ("mount", "virtiofs", f"share{number}", mount.target, readonly, "")
    return ("bindfile", f"share{number}", mount.source.name, mount.target, readonly)


def _file(file: GuestFile, content: bytes) -> Record:
    return ("file", file.target, f"{file.mode:o}", str(file.uid), str(file.gid), content)


def capabilities(security: Security, privileged: bool) -> tuple[str, ...]:
    """The allowed set: Docker's default, with what was added and dropped. Raises InvalidInput."""
    if privileged:
        return ALL_CAPABILITIES
    added = {_capability(name) for name in security.cap_add}
    dropped = {_capability(name) for name in security.cap_drop}
    base = set() if "CAP_ALL" in dropped else set(CAPABILITIES)
    if "CAP_ALL" in added:
        base = set(ALL_CAPABILITIES)
    wanted = (base | added) - dropped - {"CAP_ALL"}
    return tuple(name for name in ALL_CAPABILITIES if name in wanted)


def _capability(name: str) -> str:
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full != "CAP_ALL" and full not in ALL_CAPABILITIES:
        raise InvalidInput(f"there is no capability {name}", resolution="see capabilities(7)")
    return full


def exec_records(spec: InstanceSpec, process: Process) -> Iterator[Record]:
    """EXEC: a further program in the instance."""
    yield from _process(spec, process)


def debug_records(process: Process) -> Iterator[Record]:
    """EXEC: a program of the toolbox, as root with all capabilities of the guest."""
    yield ("debug",)
    yield ("privileged",)
    for argument in process.argv:
        yield ("arg", argument)
    for pair in process.env:
        yield ("env", pair)
    yield ("cwd", process.cwd or "/")
    if process.tty:
        rows, columns = process.size or (0, 0)
        yield ("tty", str(rows), str(columns))
    if process.stdin:
        yield ("stdin",)


def _process(spec: InstanceSpec, process: Process) -> Iterator[Record]:
    """What START and EXEC have in common."""
    security = spec.security
    for argument in process.argv:
        yield ("arg", argument)
    if not any(pair.startswith("HOSTNAME=") for pair in process.env):
        yield ("env", f"HOSTNAME={spec.hostname}")
    for pair in process.env:
        yield ("env", pair)
    yield ("cwd", process.cwd or "/")
    yield ("user", process.user)
    for group in process.groups:
        yield ("group", group)
    if process.tty:
        rows, columns = process.size or (0, 0)
        yield ("tty", str(rows), str(columns))
    if process.stdin:
        yield ("stdin",)
    privileged = security.privileged or process.privileged
    for name in capabilities(security, privileged):
        yield ("cap", name)
    if privileged:
        yield ("privileged",)
    if security.no_new_privileges:
        yield ("nnp",)
    for limit in spec.resources.ulimits:
        yield ("rlimit", limit.name, str(limit.soft), str(limit.hard))


def start_records(spec: InstanceSpec) -> Iterator[Record]:
    """START: the first process and the service's limits."""
    yield from _process(spec, spec.process)
    resources = spec.resources
    if resources.pids and resources.pids > 0:
        yield ("pids", str(resources.pids))
    if resources.memory:
        yield ("memory", str(resources.memory))
    if spec.halted:
        yield ("held",)
    if spec.security.masked_paths and not spec.security.privileged:
        for path in MASKED_PATHS:
            yield ("masked", path)
        for path in READONLY_PATHS:
            yield ("ropath", path)


def frames(session: int, kind: ToGuest, records: Iterator[Record]) -> bytes:
    """A whole message as bytes. Raises InvalidInput if it is larger than the guest takes."""
    listed = list(records)
    if len(encode_records(listed)) > MESSAGE_MAX:
        raise InvalidInput(
            f"more than {MESSAGE_MAX >> 20} MiB of files, arguments and environment",
            resolution="mount large files instead of handing them over as configs or secrets",
        )
    return b"".join(message(session, kind, listed))


def config_frames(
    spec: InstanceSpec, is_folder: Mapping[Path, bool], contents: Mapping[Path, bytes]
) -> bytes:
    """CONFIG as the relay sends it."""
    return frames(CONTROL, ToGuest.CONFIG, config_records(spec, is_folder, contents))


def start_frames(spec: InstanceSpec) -> bytes:
    """START as the relay sends it."""
    return frames(SERVICE, ToGuest.START, start_records(spec))
