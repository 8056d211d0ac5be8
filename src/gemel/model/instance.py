"""An instance: what a runtime is asked to start, and what it tells of it.

Everything is resolved here: absolute paths on the host, addresses, an image
by its id. A runtime never looks up a name.
"""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec


class RuntimeName(enum.StrEnum):
    """The two kinds of isolation that gemel has."""

    CONTAINER = "container"
    MICROVM = "microvm"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A program to run in an instance, its first one or one of an exec.

    user: as Docker has it, ``""``, ``name``, ``uid``, ``user:group``; the runtime
    resolves names with the image's own /etc/passwd and /etc/group, inside.
    env: ``KEY=value`` in order. stdin: whether standard input is open.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    size: tuple[int, int] | None = None
    """Rows and columns of the terminal at start."""
    privileged: bool = False


class MountKind(enum.StrEnum):
    """BIND: a file or folder of the host (a named volume is one too, once resolved)."""

    BIND = "bind"
    TMPFS = "tmpfs"


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One thing mounted into an instance at ``target`` (absolute, in the instance)."""

    kind: MountKind
    target: str
    source: Path | None = None
    """Host path; of a BIND only."""
    readonly: bool = False
    size: int | None = None
    """Bytes; of a TMPFS only."""
    mode: int | None = None
    options: tuple[str, ...] = ()
    volume: str = ""
    """Name of the volume that ``source`` belongs to, or empty."""
    block: bool = False
    """A volume that is a disk of its own, of one micro VM at a time."""


class Ulimit(msgspec.Struct, frozen=True, kw_only=True):
    """A resource limit: ``nofile``, ``nproc``, … without the RLIMIT_ prefix."""

    name: str
    soft: int
    hard: int


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Limits. None or 0 means no limit (memory of a micro VM: the default size)."""

    memory: int | None = None
    """Bytes."""
    memory_reservation: int | None = None
    memory_swap: int | None = None
    """Bytes of memory and swap together; -1 unlimited."""
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    shm_size: int = 64 << 20
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    ulimits: tuple[Ulimit, ...] = ()


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What the instance's processes may do (a micro VM applies it inside its guest)."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = "default"
    """``default``, ``unconfined``, or a profile's JSON text."""
    masked_paths: bool = True
    readonly_rootfs: bool = False


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device node of the host made visible in a container."""

    source: str
    target: str
    permissions: str = "rwm"


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface of an instance.

    name: inside the instance (eth0, eth1 …). host: name of the bridge's port on
    the host. For a container it is the one end of a veth pair whose other end
    sits in the instance's network namespace already; for a micro VM a tap
    device, which the runtime opens by its name.
    """

    name: str
    host: str
    bridge: str
    mac: str
    address: str
    """With prefix length: ``10.89.0.5/24``."""
    gateway: str
    mtu: int = 1500
    default_route: bool = True


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The instance's network. One of: interfaces; namespace alone (none, shared); host."""

    namespace: Path | None = None
    """Network namespace to join; None means the host's own (``network_mode: host``)."""
    interfaces: tuple[Interface, ...] = ()


class DeviceRule(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that a container may use once it has nodes for them. None: every number."""

    kind: str
    """c, b, or a for both."""
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runtime needs to start an instance.

    id: 64 hexadecimal digits. root_image: the read-only squashfs of the image;
    rootfs: the same, mounted on the host (containers). layer: folder of the
    instance's own writable layer, which lasts until ``Runtime.remove``.
    files: content that gemel itself puts into the instance at an absolute path
    (/etc/hosts, /etc/resolv.conf, /etc/hostname, secrets, configs).
    """

    id: str
    name: str
    runtime: RuntimeName
    image_id: str
    root_image: Path
    rootfs: Path | None
    layer: Path
    process: Process
    hostname: str
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    files: tuple[GuestFile, ...] = ()
    resources: Resources = Resources()
    security: Security = Security()
    network: Network = Network()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    init: bool = False
    pid_mode: str = ""
    """``""``, ``host``, or a host path of a pid namespace (/proc/PID/ns/pid)."""
    ipc_mode: str = ""
    stop_signal: int = 15
    log: Path = Path("/dev/null")
    """File of the log, in the format of ``gemel.observe.logs`` (CRI's)."""
    log_size: int = 0
    """Bytes after which the log is begun anew (0: never)."""
    halted: bool = False
    """Its program is loaded and stopped before the first instruction (SIGCONT lets it go)."""
    labels: tuple[tuple[str, str], ...] = ()


class GuestFile(msgspec.Struct, frozen=True, kw_only=True):
    """A small file with its content, owner and mode, put into an instance.

    source: where the engine keeps it on the host; containers bind it, so that a
    later write there is seen inside; a micro VM gets a copy.
    """

    target: str
    source: Path
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    readonly: bool = False


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance ended. status: as a shell has it (137 for SIGKILL)."""

    status: int
    finished_at: float
    """Seconds since the epoch."""
    oom: bool = False
    error: str = ""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance uses now. CPU in nanoseconds since its start, memory in bytes."""

    cpu_ns: int
    system_ns: int = 0
    user_ns: int = 0
    memory: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_stats: dict[str, int] = {}
    pids: int = 0
    pids_limit: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    true_memory: int = 0
    """Proportional memory (PSS) with VMM and helpers; of a container, its cgroup's."""
    true_cpu_ns: int = 0
    """CPU of the host with VMM and helpers; 0 where ``cpu_ns`` is that already."""


class Toolbox(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose programs look at an instance. root_image: its squashfs; rootfs: the
    same, mounted on the host (containers)."""

    root_image: Path
    rootfs: Path | None


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime can do; the engine asks these, never which runtime it is."""

    block_volumes: bool = False
    host_network: bool
    shared_namespaces: bool
    devices: bool
    live_update: bool
    privileged: bool
    pause: bool
    shares_kernel: bool
    debug: bool
    """Programs of a toolbox can run beside it (Runtime.debug), and it can be started held."""
