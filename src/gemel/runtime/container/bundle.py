"""From an InstanceSpec to the configuration of an OCI runtime (pure).

Everything that has to be asked of the host or of the image comes in as a value:
``Host``, ``Identity``, device nodes. tests/golden/container holds what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from gemel.errors import InvalidInput
from gemel.model.instance import DeviceRule, InstanceSpec, Mount, MountKind, Process, Resources
from gemel.runtime.container import defaults, seccomp
from gemel.runtime.container.users import Identity

Json = dict[str, Any]

#: Where the init program is seen in an instance that asks for one.
INIT_TARGET = "/sbin/gemel-init"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the host is, as far as a configuration depends on it."""

    cgroup_v2: bool
    swap_accounting: bool = True
    machine: str = "x86_64"
    kernel: tuple[int, int] = (6, 1)
    capabilities: tuple[str, ...] = defaults.ALL_CAPABILITIES
    """Those that the engine has, and can hand on."""
    nofile: int = 1 << 20
    """The highest number of open files that a process may be given."""
    init: str = ""
    """Path of a small static init program; empty without one."""


class DeviceNode(msgspec.Struct, frozen=True, kw_only=True):
    """A device of the host. kind: ``c`` or ``b``."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"


def config(
    spec: InstanceSpec,
    *,
    rootfs: Path,
    shm: Path | None = None,
    cgroup: str,
    identity: Identity,
    host: Host,
    profile: Mapping[str, Any] | None,
    devices: Sequence[DeviceNode] = (),
) -> Json:
    """The whole config.json. profile: the seccomp profile in Docker's format, None for none.

    shm: what is seen at /dev/shm, a folder of the host; None for a tmpfs of its own.
    """
    linux: Json = {
        "cgroupsPath": cgroup,
        "namespaces": namespaces(spec, host),
        "resources": resources(spec.resources, host, devices, spec.security.privileged),
        "devices": [_device(node) for node in devices],
        "rootfsPropagation": "rprivate",
    }
    if not spec.security.privileged:
        linux["resources"]["devices"] += [_rule(rule) for rule in spec.device_rules]
    if variables := sysctls(spec):
        linux["sysctl"] = variables
    if spec.security.masked_paths and not spec.security.privileged:
        linux["maskedPaths"] = list(defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(defaults.READONLY_PATHS)
    if profile is not None and not spec.security.privileged:
        caps = capabilities(spec, host)
        linux["seccomp"] = seccomp.oci(profile, caps, host.machine, host.kernel)
    return {
        "ociVersion": "1.0.2",
        "process": first_process(spec, identity, host),
        "root": {"path": str(rootfs), "readonly": spec.security.readonly_rootfs},
        "hostname": spec.hostname,
        "mounts": mounts(spec, host, shm),
        "linux": linux,
        "annotations": {"io.gemel.name": spec.name, "io.gemel.image": spec.image_id},
    }


def first_process(spec: InstanceSpec, identity: Identity, host: Host) -> Json:
    """The ``process`` of the configuration."""
    argv = spec.process.argv
    if spec.init:
        argv = (INIT_TARGET, "--", *argv)
    made = process(
        msgspec.structs.replace(spec.process, argv=argv),
        identity,
        caps=capabilities(spec, host),
        hostname=spec.hostname,
        no_new_privileges=spec.security.no_new_privileges and not spec.security.privileged,
    )
    made["rlimits"] = rlimits(spec.resources, host)
    if spec.resources.oom_score_adj:
        made["oomScoreAdj"] = spec.resources.oom_score_adj
    return made


def process(
    wanted: Process,
    identity: Identity,
    *,
    caps: Sequence[str],
    hostname: str,
    no_new_privileges: bool,
) -> Json:
    """A ``process`` object, of the first program or of an exec."""
    user: Json = {"uid": identity.uid, "gid": identity.gid}
    if identity.groups:
        user["additionalGids"] = list(identity.groups)
    sets = {kind: list(caps) for kind in ("bounding", "effective", "permitted")}
    made: Json = {
        "terminal": wanted.tty,
        "user": user,
        "args": list(wanted.argv),
        "env": environment(wanted, identity, hostname),
        "cwd": wanted.cwd or "/",
        "capabilities": sets,
        "noNewPrivileges": no_new_privileges,
    }
    if wanted.tty and wanted.size:
        made["consoleSize"] = {"height": wanted.size[0], "width": wanted.size[1]}
    return made


def environment(wanted: Process, identity: Identity, hostname: str) -> list[str]:
    """The program's variables, with those that Docker adds where they are missing."""
    names = {entry.partition("=")[0] for entry in wanted.env}
    added = [defaults.PATH, f"HOSTNAME={hostname}"]
    if wanted.tty:
        added.append("TERM=xterm")
    added.append(f"HOME={identity.home}")
    return [e for e in added if e.partition("=")[0] not in names] + list(wanted.env)


def capabilities(spec: InstanceSpec, host: Host) -> list[str]:
    """Names with ``CAP_``, in the kernel's order.

    Raises InvalidInput for an unknown one, and for one that the engine lacks itself.
    """
    if spec.security.privileged:
        return list(host.capabilities)
    add = _named(spec.security.cap_add)
    drop = _named(spec.security.cap_drop)
    if lacking := add - {"CAP_ALL"} - set(host.capabilities):
        name = sorted(lacking)[0]
        raise InvalidInput(
            f"cannot add capability {name}",
            details="the engine does not have it itself",
            resolution="take it out of cap_add, or run the engine with it",
        )
    chosen = set(defaults.CAPABILITIES)
    if "CAP_ALL" in add:
        chosen = set(host.capabilities)
    if "CAP_ALL" in drop:
        chosen = set()
    chosen |= {name for name in add if name != "CAP_ALL"}
    chosen -= drop
    return [name for name in host.capabilities if name in chosen]


def _named(names: Sequence[str]) -> set[str]:
    found = {
        name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}" for name in names
    }
    if unknown := found - set(defaults.ALL_CAPABILITIES) - {"CAP_ALL"}:
        raise InvalidInput(
            f"invalid capability: {sorted(unknown)[0]}",
            resolution="capabilities(7) lists them; ALL means every one",
        )
    return found


def rlimits(wanted: Resources, host: Host) -> list[Json]:
    """``process.rlimits``: those asked for, and Docker's number of open files."""
    limits = {limit.name.lower(): (limit.soft, limit.hard) for limit in wanted.ulimits}
    limits.setdefault("nofile", (host.nofile, host.nofile))
    return [
        {
            "type": f"RLIMIT_{name.upper()}",
            "soft": _unlimited(soft),
            "hard": _unlimited(hard),
        }
        for name, (soft, hard) in sorted(limits.items())
    ]


def _unlimited(value: int) -> int:
    return (1 << 64) - 1 if value < 0 else value


def namespaces(spec: InstanceSpec, host: Host) -> list[Json]:
    """Own ones, joined ones; one that is left out is the host's."""
    wanted: list[Json] = [{"type": "mount"}, {"type": "uts"}]
    if spec.network.namespace is not None:
        wanted.append({"type": "network", "path": str(spec.network.namespace)})
    for kind, mode in (("pid", spec.pid_mode), ("ipc", spec.ipc_mode)):
        if mode.startswith("/"):
            wanted.append({"type": kind, "path": mode})
        elif mode != "host":
            wanted.append({"type": kind})
    if host.cgroup_v2 and not spec.security.privileged:
        wanted.append({"type": "cgroup"})
    return wanted


def sysctls(spec: InstanceSpec) -> dict[str, str]:
    """Docker's defaults (low ports and ping for everybody) in an own network, and those asked."""
    found: dict[str, str] = {}
    if spec.network.namespace is not None and spec.network.interfaces:
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
        found["net.ipv4.ping_group_range"] = "0 2147483647"
    if spec.domainname:
        found["kernel.domainname"] = spec.domainname
    return found | dict(spec.sysctls)


def _rule(rule: DeviceRule) -> Json:
    found: Json = {"allow": True, "access": rule.access}
    numbers = {"type": rule.kind, "major": rule.major, "minor": rule.minor}
    return found | {key: value for key, value in numbers.items() if value is not None}


def resources(
    wanted: Resources, host: Host, devices: Sequence[DeviceNode] = (), privileged: bool = False
) -> Json:
    """``linux.resources``."""
    found = limits(wanted, host)
    if privileged:
        found["devices"] = [{"allow": True, "access": "rwm"}]
    else:
        found["devices"] = [dict(rule) for rule in defaults.DEVICE_RULES] + [
            {
                "allow": True,
                "type": node.kind,
                "major": node.major,
                "minor": node.minor,
                "access": node.permissions,
            }
            for node in devices
        ]
    return found


def limits(wanted: Resources, host: Host) -> Json:
    """Those of ``linux.resources`` that can be changed while the container runs."""
    found: Json = {}
    memory: Json = {}
    if wanted.memory:
        memory["limit"] = wanted.memory
        swap = wanted.memory_swap if wanted.memory_swap else 2 * wanted.memory
        if host.swap_accounting:
            memory["swap"] = swap
    if wanted.memory_reservation:
        memory["reservation"] = wanted.memory_reservation
    if wanted.oom_kill_disable and not host.cgroup_v2:
        memory["disableOOMKiller"] = True
    if memory:
        found["memory"] = memory
    cpu: Json = {}
    if wanted.cpus:
        cpu |= {"quota": max(1000, round(wanted.cpus * 100_000)), "period": 100_000}
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpuset:
        cpu["cpus"] = wanted.cpuset
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    if cpu:
        found["cpu"] = cpu
    if wanted.pids and wanted.pids > 0:
        found["pids"] = {"limit": wanted.pids}
    return found


def _device(node: DeviceNode) -> Json:
    return {
        "path": node.path,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def first_mounts() -> list[Json]:
    """What is mounted first in any root: processes, an empty /dev, terminals."""
    return [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
    ]


def mounts(spec: InstanceSpec, host: Host, shm: Path | None = None) -> list[Json]:
    """All mounts: the system's, then the user's from the shortest path to the longest."""
    privileged = spec.security.privileged
    safe = ["nosuid", "noexec", "nodev"]
    readonly = [] if privileged else ["ro"]
    system: list[Json] = [
        *first_mounts(),
        _mount("/sys", "sysfs", "sysfs", [*safe, *readonly]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", *readonly]),
        _mount("/dev/mqueue", "mqueue", "mqueue", safe),
        _shm(spec, shm),
    ]
    users = [_user_mount(mount) for mount in spec.mounts]
    taken = {mount.target for mount in spec.mounts}
    users += [
        _mount(file.target, "bind", str(file.source), ["bind", "rprivate"] + ["ro"] * file.readonly)
        for file in spec.files
        if file.target not in taken
    ]
    if spec.init:
        users.append(_mount(INIT_TARGET, "bind", host.init, ["bind", "rprivate", "ro"]))
    replaced = {mount["destination"] for mount in users}
    users.sort(key=lambda mount: len(PurePosixPath(mount["destination"]).parts))
    return [mount for mount in system if mount["destination"] not in replaced] + users


def _shm(spec: InstanceSpec, shm: Path | None) -> Json:
    if shm is not None:
        options = ["bind", "rprivate", "nosuid", "noexec", "nodev"]
        return _mount("/dev/shm", "bind", str(shm), options)
    size = f"size={spec.resources.shm_size or 64 << 20}"
    return _mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", size])


def _mount(target: str, kind: str, source: str, options: Sequence[str]) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _user_mount(mount: Mount) -> Json:
    if mount.kind is MountKind.TMPFS:
        options = ["nosuid", "nodev", "noexec"]
        for option in mount.options:
            if option in ("suid", "dev", "exec"):
                options.remove(f"no{option}")
            elif option not in options:
                options.append(option)
        if mount.size:
            options.append(f"size={mount.size}")
        if mount.mode is not None:
            options.append(f"mode={mount.mode:o}")
        if mount.readonly:
            options.append("ro")
        return _mount(mount.target, "tmpfs", "tmpfs", options)
    if mount.source is None:
        raise InvalidInput(f"the mount on {mount.target} has no source")
    known = {"rprivate", "private", "rshared", "shared", "rslave", "slave"}
    propagation = [option for option in mount.options if option in known] or ["rprivate"]
    options = ["rbind", *propagation, "ro" if mount.readonly else "rw"]
    return _mount(mount.target, "bind", str(mount.source), options)
