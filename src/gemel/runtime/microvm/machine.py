"""QEMU's command line and what the relay is told. Pure.

Nothing that names an instance is in QEMU's arguments: disks, taps, file servers
and the agent's channel are descriptors with fixed numbers, kernel and initrd have
fixed names in the jail. So a template's arguments are those of its clones. The
order of devices is fixed too: disks (vda, vdb), then interfaces, then shares,
which a clone gets once it runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gemel.errors import InvalidInput
from gemel.runtime.microvm.protocol import PORT_NAME, Record
from gemel.runtime.microvm.slots import FIRST, SLOTS, SPARE

AGENT_FD = 3
FIRST_DISK_FD = 4
MEMORY_FD = 12
QMP_FD = 13
CONSOLE_FD = 14
FIRST_TAP_FD = 16
FIRST_SHARE_FD = 64
MIB = 1 << 20
#: What the guest's kernel, its initrd and the agent take, beside what the service may have.
OVERHEAD = 80 * MIB
DEFAULT_MEMORY = 256 * MIB
DEFAULT_MEMORY_KVM = 512 * MIB
#: All that QEMU can emulate but "fast" string instructions. Emulated they go byte by byte: without
#: them kernel and programs clear and copy memory four to seven times as fast.
EMULATED_CPU = "max,-erms,-fsrm"
_PLUG = "plug"


class Disk(msgspec.Struct, frozen=True):
    """A raw image. serial: by which the guest finds it."""

    path: Path
    serial: str
    writable: bool = False


class Nic(msgspec.Struct, frozen=True):
    """A network interface at a tap of the host."""

    tap: str
    mac: str


class Share(msgspec.Struct, frozen=True):
    """A folder (``name`` empty) or one file of the host, under ``tag`` in the guest.

    watched: changes that the host makes there are told to the guest.
    """

    tag: str
    source: Path
    name: str = ""
    readonly: bool = False
    watched: bool = False


class FileServer(msgspec.Struct, frozen=True):
    """virtiofsd: the one in C (QEMU's own, to 7.2) or the one in Rust."""

    program: str
    rust: bool
    open_files: int


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A template's content, as descriptors: the guest's memory, and its devices' state."""

    memory: int
    state: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A micro VM's hardware. memory in bytes."""

    qemu: str
    kvm: bool
    memory: int
    cpus: int
    kernel: Path
    initrd: Path
    command_line: str
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    shares: tuple[Share, ...] = ()
    volumes: tuple[Disk, ...] = ()
    """Block volumes: disks that a clone gets once it runs."""
    source: bool = False
    """Snapshots can be taken of it while its service runs, if it is a clone itself."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines in seconds: boot to the agent's greeting, setting up, powering off.

    boot_cpu: CPU time after which a boot that has not come up hangs, and is tried again.
    clone: from a clone's start to its agent's first answer; a cold boot takes over then.
    """

    boot: float = 40.0
    boot_cpu: float = 8.0
    config: float = 30.0
    clone: float = 15.0
    stop: float = 5.0


def guest_memory(limit: int | None, kvm: bool) -> int:
    """Bytes of memory of a VM whose service may use ``limit``; 4 MiB steps."""
    if not limit:
        return DEFAULT_MEMORY_KVM if kvm else DEFAULT_MEMORY
    step = 4 * MIB
    return (limit + OVERHEAD + step - 1) // step * step


def guest_cpus(cpus: float | None, kvm: bool, host_cpus: int) -> int:
    """Virtual CPUs. Emulation gets slower with a second one; KVM gets what is asked for."""
    if not kvm:
        return 1
    return max(1, min(math.ceil(cpus) if cpus else host_cpus, host_cpus))


def check(machine: Machine) -> None:
    """Raises InvalidInput for more devices than the machine has slots."""
    plugged = len(machine.shares) + len(machine.volumes)
    used = len(machine.disks) + len(machine.nics) + plugged + 2
    if len(machine.disks) + len(machine.volumes) > MEMORY_FD - FIRST_DISK_FD:
        raise InvalidInput(
            f"a micro VM has no room for {len(machine.volumes)} block volumes",
            details=f"it has room for {MEMORY_FD - FIRST_DISK_FD - len(machine.disks)}",
        )
    if used > SLOTS:
        raise InvalidInput(
            f"a micro VM has room for {SLOTS} devices, this one needs {used}",
            details=f"{len(machine.disks)} disks, {len(machine.nics)} networks, "
            f"{plugged} bind mounts and volumes, 1 channel, 1 balloon",
            resolution="mount a common parent folder, or use runtime: container",
        )


def why_no_clone(machine: Machine) -> str | None:
    """Why this machine cannot be a clone, if its shares have no room in the spare slots."""
    shares = len(machine.shares) + len(machine.volumes)
    others = len(machine.disks) + len(machine.nics) + 2
    if shares > SPARE:
        return f"it has more than {SPARE} bind mounts and volumes"
    if shares and FIRST + shares + others > SLOTS:
        return "its networks leave no room to plug in bind mounts and volumes"
    return None


def qemu_arguments(machine: Machine, *, snapshot: str = "") -> list[str]:
    """QEMU and its arguments, with the descriptors' fixed numbers.

    snapshot: ``save`` for a template, ``restore`` for its clones, else empty.
    """
    check(machine)
    return [
        machine.qemu,
        *("-M", "microvm,acpi=on,pcie=off,rtc=on,isa-serial=off,usb=off"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-cpu", "host" if machine.kvm else EMULATED_CPU),
        *("-accel", "kvm" if machine.kvm else "tcg,thread=multi,tb-size=128"),
        *("-smp", str(machine.cpus), *_memory(machine, snapshot)),
        *("-kernel", "/kernel", "-initrd", "/initrd", "-append", machine.command_line),
        *("-global", "virtio-mmio.force-legacy=false"),
        *_devices(machine, plugged=snapshot == "restore"),
        *_control(snapshot),
    ]


def _memory(machine: Machine, snapshot: str) -> Iterator[str]:
    size = f"{machine.memory // MIB}M"
    yield from ("-m", size)
    if snapshot:
        # clones map the template's memory, each with its own changes; with file servers,
        # which must map it as well, or to be saved, the relay hands a copy over
        own = snapshot == "save" or machine.shares or machine.source
        share = "on" if own else "off"
        path = f"/proc/self/fd/{MEMORY_FD}"
        yield "-object"
        yield f"memory-backend-file,id=ram,size={size},mem-path={path},share={share}"
        yield from ("-machine", "memory-backend=ram")
    elif machine.shares:  # the file servers map the guest's memory
        yield from ("-object", f"memory-backend-memfd,id=ram,size={size},share=on")
        yield from ("-machine", "memory-backend=ram")


def _control(snapshot: str) -> Iterator[str]:
    if snapshot:
        yield from ("-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control")
    if snapshot == "restore":
        yield from ("-incoming", "defer")


def _devices(machine: Machine, *, plugged: bool) -> Iterator[str]:
    """plugged: shares and volumes come later, by ``plug_commands``."""
    for number, disk in enumerate(machine.disks):
        yield from _block(number, disk)
        yield from ("-device", f"virtio-blk-device,drive=disk{number},serial={disk.serial}")
    for number, nic in enumerate(machine.nics):
        yield from ("-netdev", f"tap,id=net{number},fd={FIRST_TAP_FD + number},vhost=off")
        yield from ("-device", f"virtio-net-device,netdev=net{number},mac={nic.mac}")
    for number, disk in enumerate(machine.volumes, len(machine.disks)):
        yield from _block(number, disk)
        if not plugged:
            yield from ("-device", f"virtio-blk-device,drive=disk{number},serial={disk.serial}")
    for number, share in enumerate(machine.shares):
        yield from ("-chardev", f"socket,id=share{number},fd={FIRST_SHARE_FD + number}")
        if not plugged:
            yield from ("-device", f"vhost-user-fs-device,chardev=share{number},tag={share.tag}")
    if plugged and (
        machine.shares or machine.volumes
    ):  # of the guest's, nobody has told it of this one
        yield from ("-device", f"virtio-scsi-device,id={_PLUG},bus=virtio-mmio-bus.0")
    yield from ("-device", "virtio-serial-device", "-chardev", f"socket,id=agent,fd={AGENT_FD}")
    yield from ("-device", f"virtserialport,chardev=agent,name={PORT_NAME}")
    # its kernel's last words
    yield from ("-add-fd", f"fd={CONSOLE_FD},set={CONSOLE_FD}")
    yield from ("-chardev", f"file,id=console,path=/dev/fdset/{CONSOLE_FD},append=on")
    yield from ("-device", "virtconsole,chardev=console")
    # what the guest frees goes back to the host
    yield from ("-device", "virtio-balloon-device,free-page-reporting=on")


def _block(number: int, disk: Disk) -> Iterator[str]:
    readonly = "off" if disk.writable else "on"
    discard = "unmap" if disk.writable else "ignore"
    yield from ("-add-fd", f"fd={FIRST_DISK_FD + number},set={number}")
    yield "-blockdev"
    yield (
        f"driver=raw,node-name=disk{number},read-only={readonly},discard={discard},"
        f"file.driver=file,file.filename=/dev/fdset/{number},file.locking=off"
    )


def plug_commands(machine: Machine) -> Iterator[str]:
    """QMP commands that put shares and volumes into a running clone's spare slots, one a line.

    A virtio-mmio slot takes no device while the VM runs unless it has someone who is asked
    about it; a SCSI bus is one who agrees to everything.
    """
    devices = [
        {"driver": "vhost-user-fs-device", "chardev": f"share{number}", "tag": share.tag}
        for number, share in enumerate(machine.shares)
    ]
    devices += [
        {"driver": "virtio-blk-device", "drive": f"disk{number}", "serial": disk.serial}
        for number, disk in enumerate(machine.volumes, len(machine.disks))
    ]
    for slot, device in enumerate(devices, FIRST):
        bus = f"virtio-mmio-bus.{slot}"
        handler = {"path": bus, "property": "hotplug-handler", "value": f"{_PLUG}.0"}
        yield json.dumps({"execute": "qom-set", "arguments": handler})
        arguments = device | {"id": f"plugged{slot}", "bus": bus}
        yield json.dumps({"execute": "device_add", "arguments": arguments})


def file_server_arguments(server: FileServer, folder: Path) -> list[str]:
    """virtiofsd for one folder; its socket, listening already, is descriptor 3."""
    limit = f"--rlimit-nofile={server.open_files}"
    if server.rust:
        return [
            *(server.program, "--fd=3", f"--shared-dir={folder}", "--cache=auto", limit),
            *("--sandbox=namespace", "--inode-file-handles=prefer", "--xattr"),
        ]
    return [
        *(server.program, "--fd=3", limit, "-o", f"source={folder}"),
        *("-o", "cache=auto,sandbox=namespace,xattr"),
    ]


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """Of a VM whose service ran: IDENTITY and the hook's EXEC as whole frames, and a disk.

    The disk takes the place of the machine's writable one when the service goes on.
    """

    identity: bytes
    hook: bytes
    disk: Path


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the relay is to run, beside the machine itself.

    cgroups: cgroup.procs files that it enters. config and start: whole frames.
    probe: only find out whether the guest comes up. idle: for helpers alone, no service is
    started, and the VM ends some seconds after the last helper. attached: so many are to be
    attached before the service starts. discard: guest/host/discard.c, compiled; for clones.
    template: save the guest into ``guest`` at its
    agent's greeting. Otherwise ``guest`` is what to clone, with a cold boot if that fails.
    """

    folder: Path
    log: Path
    log_size: int = 0
    user: int
    cgroups: tuple[Path, ...] = ()
    config: bytes = b""
    start: bytes = b""
    limits: Limits = Limits()
    file_server: FileServer | None = None
    attached: int = 0
    probe: bool = False
    idle: bool = False
    template: bool = False
    guest: Guest | None = None
    discard: Path | None = None
    copy: Copy | None = None


def relay_records(machine: Machine, job: Job) -> Iterator[Record]:
    """The relay's standard input, as records."""
    yield ("dir", str(job.folder))
    yield ("log", str(job.log))
    yield ("log-size", str(job.log_size))
    if job.probe:
        yield ("probe",)
    if job.idle:
        yield ("idle",)
    yield ("attached", str(job.attached))
    yield ("uid", str(job.user))
    yield ("gid", str(job.user))
    for name, seconds in (
        ("boot-ms", job.limits.boot),
        ("boot-cpu-ms", job.limits.boot_cpu),
        ("config-ms", job.limits.config),
        ("clone-ms", job.limits.clone),
        ("stop-ms", job.limits.stop),
    ):
        yield (name, str(int(seconds * 1000)))
    for cgroup in job.cgroups:
        yield ("cgroup", str(cgroup))
    yield ("agent", str(AGENT_FD))
    yield ("console", str(CONSOLE_FD))
    for number, disk in enumerate(machine.disks):
        access = "rw" if disk.writable else "ro"
        yield ("disk", str(FIRST_DISK_FD + number), str(disk.path), access)
    for number, disk in enumerate(machine.volumes, FIRST_DISK_FD + len(machine.disks)):
        yield ("disk", str(number), str(disk.path), "alone")
    for number, nic in enumerate(machine.nics):
        yield ("tap", str(FIRST_TAP_FD + number), nic.tap)
    yield from _share_records(machine, job)
    yield ("bind", str(machine.kernel), "kernel")
    yield ("bind", str(machine.initrd), "initrd")
    if machine.kvm:
        yield ("bind", "/dev/kvm", "dev/kvm")
    yield ("config", job.config)
    yield ("start", job.start)
    if job.guest is not None:
        yield ("memory", str(MEMORY_FD), str(job.guest.memory), str(job.guest.state))
        yield ("qmp", str(QMP_FD))
    if job.template:
        yield ("template",)
        yield ("run", *qemu_arguments(machine, snapshot="save"))
        return
    yield ("run", *qemu_arguments(machine))
    if job.guest is not None:
        yield from _clone_records(machine, job)


def _clone_records(machine: Machine, job: Job) -> Iterator[Record]:
    if job.discard is not None:
        yield ("bind", str(job.discard), "discard.so")
        yield ("preload", "/discard.so")
    yield ("clone-run", *qemu_arguments(machine, snapshot="restore"))
    if machine.source:
        yield ("source",)
    if job.copy is not None:
        yield ("identity", job.copy.identity)
        yield ("hook", job.copy.hook)
        yield ("warm-disk", str(job.copy.disk))
    if machine.shares or machine.volumes:
        yield ("plug", "".join(f"{line}\n" for line in plug_commands(machine)))


def _share_records(machine: Machine, job: Job) -> Iterator[Record]:
    for number, share in enumerate(machine.shares):
        if job.file_server is None:
            raise InvalidInput("there is no file server to share folders with")
        yield (
            *("share", str(FIRST_SHARE_FD + number), str(share.source), share.name),
            "ro" if share.readonly else "rw",
            *file_server_arguments(job.file_server, job.folder / f"share-{number}"),
        )
        if share.watched and not job.idle:
            yield ("watch", share.tag)
