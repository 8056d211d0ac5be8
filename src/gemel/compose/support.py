"""The parity table: what of the Compose specification is carried out, in either runtime.

``TABLE`` holds one entry for every attribute, keyed by path below a service or
below the top of the file; ``lint`` applies it to a project, and
docs/compose-support.md is printed from it (``python -m gemel.compose.support``).
"""

from __future__ import annotations

import enum
import platform
from collections.abc import Callable
from typing import Any

import msgspec


class Level(enum.StrEnum):
    """What becomes of an attribute."""

    SUPPORTED = "supported"
    IGNORED = "ignored"
    REFUSED = "refused"


class Entry(msgspec.Struct, frozen=True):
    """An attribute in both runtimes. why: what is not done, or done otherwise.

    when: whether a value is one that the levels are about; None: any that is not
    empty. A value that they are not about is supported. values: words for those
    values, in the document.
    """

    container: Level = Level.SUPPORTED
    microvm: Level = Level.SUPPORTED
    why: str = ""
    when: Callable[[Any], bool] | None = None
    values: str = ""


def _yes(names: str, why: str = "") -> dict[str, Entry]:
    return dict.fromkeys(names.split(), Entry(why=why))


def _ignored(why: str, when: Callable[[Any], bool] | None = None, values: str = "") -> Entry:
    return Entry(Level.IGNORED, Level.IGNORED, why, when, values)


def _refused(why: str, when: Callable[[Any], bool] | None = None, values: str = "") -> Entry:
    return Entry(Level.REFUSED, Level.REFUSED, why, when, values)


def _vm_refused(why: str, when: Callable[[Any], bool] | None = None, values: str = "") -> Entry:
    return Entry(Level.SUPPORTED, Level.REFUSED, why, when, values)


def _vm_ignored(why: str, when: Callable[[Any], bool] | None = None, values: str = "") -> Entry:
    return Entry(Level.SUPPORTED, Level.IGNORED, why, when, values)


def _shares(value: Any) -> bool:
    return str(value).startswith(("service:", "container:"))


def _host_or_shared(value: Any) -> bool:
    return value == "host" or _shares(value)


def _odd_security(value: Any) -> bool:
    known = ("seccomp", "no-new-privileges", "systempaths", "apparmor", "label")
    return any(entry.replace(":", "=", 1).split("=")[0] not in known for entry in value)


def other_platform(value: Any) -> bool:
    """Whether a platform (``linux/arm64``) is another one than the machine's own."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    system, _, machine = str(value).partition("/")
    own = platform.machine()
    return system != "linux" or machine.split("/")[0] not in ("", own, names.get(own, own))


_LOGS = ("json-file", "local", "none", "journald", "k8s-file")
_GUEST = "applied inside the guest"
_SHARED = "a micro VM shares no namespace with others"
_OWN = "a micro VM has its own"

SERVICE: dict[str, Entry] = {
    **_yes(
        "attach build command container_name depends_on dns dns_opt dns_search domainname"
        " entrypoint env_file environment expose extends external_links extra_hosts group_add"
        " healthcheck hostname image label_file labels links networks"
        " ports profiles pull_policy restart runtime scale secrets configs shm_size stdin_open"
        " stop_grace_period stop_signal tmpfs tty user working_dir volumes"
    ),
    **_yes("cap_add cap_drop init read_only sysctls ulimits", _GUEST),
    "annotations": _ignored("annotations are not passed on"),
    "blkio_config": _ignored("block I/O is not limited"),
    "cgroup": _ignored("always a private one", lambda v: v != "private", "host"),
    "cgroup_parent": _ignored("all instances of an engine are under one control group"),
    "cpu_count": _ignored("of Windows containers only"),
    "cpu_percent": _ignored("of Windows containers only"),
    "cpu_period": _vm_ignored("use cpus"),
    "cpu_quota": _vm_ignored("use cpus"),
    "cpu_rt_period": _ignored("real-time scheduling is not set"),
    "cpu_rt_runtime": _ignored("real-time scheduling is not set"),
    "cpu_shares": _vm_ignored("use cpus"),
    "cpus": Entry(why="a micro VM gets as many virtual CPUs, rounded up"),
    "cpuset": _vm_ignored("a micro VM runs on any CPU"),
    "credential_spec": _refused("of Windows containers only"),
    "deploy.endpoint_mode": Entry(why="vip is the default from two replicas on"),
    "deploy.labels": _ignored("labels of a Swarm service; use labels"),
    "deploy.mode": _ignored(
        "there is one machine: replicas are counted", lambda v: v != "replicated", "global"
    ),
    "deploy.placement": _ignored("there is one machine"),
    "deploy.replicas": Entry(),
    "deploy.resources.limits": Entry(why="of a micro VM: the size of its memory"),
    "deploy.resources.reservations": _vm_ignored(
        "reservations of memory and devices",
        lambda v: any(k in v for k in ("memory", "devices")),
    ),
    "deploy.resources.reservations.cpus": _ignored("CPUs are not reserved"),
    "deploy.resources.reservations.devices": _refused("devices are not reserved"),
    "deploy.resources.reservations.generic_resources": _ignored("of Swarm only"),
    "deploy.restart_policy": Entry(why="delay and window are the engine's own"),
    "deploy.rollback_config": Entry(
        why="order, parallelism, delay; the old instances are started again as they were"
    ),
    "deploy.update_config": Entry(why="a failing instance is taken back at once"),
    "develop": Entry(why="by gemel watch"),
    "device_cgroup_rules": _vm_refused("a micro VM sees no device of the host"),
    "devices": _vm_refused("a micro VM sees no device of the host"),
    "gpus": _refused("GPUs are not passed on"),
    "ipc": _vm_refused(_SHARED, _host_or_shared, "host, service:, container:"),
    "isolation": _refused("of Windows containers only", lambda v: v != "default"),
    "logging": _refused(
        "logs are kept by the engine",
        lambda v: v.get("driver") not in (None, "", *_LOGS),
        "drivers other than json-file, local, none, journald",
    ),
    "mac_address": Entry(),
    "mem_limit": Entry(why="of a micro VM: the size of its memory"),
    "mem_reservation": _vm_ignored("memory is not reserved"),
    "mem_swappiness": _ignored("swappiness is not set"),
    "memswap_limit": _vm_ignored("a micro VM has no swap"),
    "models": Entry(why="served by Docker's model runner, or by a server that the file names"),
    "network_mode": _vm_refused(_SHARED, _host_or_shared, "host, service:, container:"),
    "networks.*.driver_opts": _ignored("networks have no options for an endpoint"),
    "networks.*.gw_priority": _ignored("the first network by priority has the default route"),
    "networks.*.interface_name": _ignored("interfaces are named eth0, eth1 and so on"),
    "networks.*.ipv6_address": _ignored("networks are IPv4"),
    "networks.*.link_local_ips": _ignored("link-local addresses are not set"),
    "oom_kill_disable": _vm_ignored(_OWN),
    "oom_score_adj": _vm_ignored("of processes on the host"),
    "pid": _vm_refused(_SHARED, _host_or_shared, "host, service:, container:"),
    "pids_limit": Entry(why=_GUEST),
    "platform": _ignored(
        "images are of the machine's own architecture", other_platform, "another one"
    ),
    "ports.*.app_protocol": _ignored("no part of the data path looks at it"),
    "ports.*.host_ip": _refused(
        "ports are published on IPv4 addresses",
        lambda v: ":" in v and v.strip("[]") != "::",
        "IPv6 other than [::]",
    ),
    "ports.*.mode": Entry(why="host and ingress are the same on one machine"),
    "ports.*.name": Entry(),
    "post_start": Entry(why="also after gemel start and restart"),
    "pre_start": Entry(why="by up, update and start, for a service of which nothing runs"),
    "pre_stop": Entry(why="whoever stops it; at most 100 s"),
    "privileged": Entry(why="in a micro VM: all of the guest, nothing of the host"),
    "provider": Entry(why="its program is run on the client's side, as by Compose"),
    "pull_refresh_after": _ignored("use pull_policy"),
    "security_opt": _refused(
        "known are seccomp, no-new-privileges, systempaths, apparmor and label",
        _odd_security,
        "others",
    ),
    "storage_opt": _ignored("a writable layer has no limit"),
    "use_api_socket": _refused("the engine's socket is not passed on"),
    "userns_mode": _ignored(
        "there are no user namespaces, as in dockerd without userns-remap",
        lambda v: v != "host",
        "not host",
    ),
    "uts": _ignored("every instance has its own host name"),
    "volumes.*.bind.propagation": _ignored(
        "always private", lambda v: v not in ("private", "rprivate"), "shared, slave"
    ),
    "volumes.*.bind.recursive": _ignored("mounts below a bind are bound too"),
    "volumes.*.bind.selinux": _ignored("files are not labelled"),
    "volumes.*.consistency": _ignored("of Docker Desktop only"),
    "volumes.*.type": _refused(
        "only bind, volume, tmpfs and image (read-only)",
        lambda v: v not in ("bind", "volume", "tmpfs", "image"),
        "cluster, npipe",
    ),
    "volumes.*.volume.labels": _ignored("use the volume's own labels"),
    "volumes_from": Entry(),
    "x-gemel.drain": Entry(why="what is open then ends with the old instance"),
    "x-gemel.healthcheck": Entry(why="HTTP, TCP and gRPC from outside; see compose.md"),
    "x-gemel.restart-on-unhealthy": Entry(),
    "x-gemel.core": Entry(),
    "x-gemel.timeout": Entry(why="of a service with provider: for a call of its program"),
    "x-gemel.snapshot": Entry(why="of micro VMs: warm, on, off; see micro-vms.md"),
}

BUILD = "Keys of build: see below."
BUILDS: dict[str, Entry] = {
    **_yes(
        "args context dockerfile dockerfile_inline extra_hosts labels"
        " no_cache pull shm_size tags target ulimits"
    ),
    "additional_contexts": Entry(why="folders, docker-image://, service:, http(s) and git URLs"),
    "network": _refused(
        "builds have the host's network or none",
        lambda v: v not in ("default", "host", "none", "bridge"),
        "other than host, none, default",
    ),
    "secrets": Entry(why="kept in memory, on no disk; uid, gid and mode are RUN --mount's"),
    "cache_from": Entry(why="one registry's repository; else ignored, with the reason"),
    "cache_to": Entry(why="one registry's repository; else ignored, with the reason"),
    "entitlements": _ignored("builds have no entitlements"),
    "isolation": _ignored("of Windows containers only"),
    "no_cache_filter": _ignored("use no_cache"),
    "platforms": _ignored(
        "one is built: the service's platform, else the machine's own, else the first",
        lambda v: len(v) > 1,
        "more than one",
    ),
    "privileged": _ignored("builds are never privileged"),
    "provenance": _ignored("no attestations are made"),
    "sbom": _ignored("no attestations are made"),
    "ssh": _ignored(
        "no SSH agent is passed on; name a key file",
        lambda v: any(path is None for path in v.values()),
        "without a key file",
    ),
}

TOP: dict[str, Entry] = {
    "name": Entry(),
    "include": Entry(),
    "services": Entry(),
    "networks.*.attachable": Entry(),
    "networks.*.driver": _refused(
        "networks are bridges", lambda v: v not in ("bridge", "default"), "not bridge"
    ),
    "networks.*.driver_opts": Entry(why="of bridge networks"),
    "networks.*.enable_ipv4": _ignored("networks are IPv4", lambda v: v is False, "false"),
    "networks.*.enable_ipv6": _ignored("networks are IPv4: its services get IPv4 addresses"),
    "networks.*.external": Entry(),
    "networks.*.internal": Entry(),
    "networks.*.ipam": Entry(why="the first IPv4 pool"),
    "networks.*.ipam.config.*.subnet": _ignored("networks are IPv4", lambda v: ":" in v, "of IPv6"),
    "networks.*.labels": Entry(),
    "networks.*.name": Entry(),
    "volumes.*.driver": _refused("only local", lambda v: v != "local", "not local"),
    "volumes.*.driver_opts": Entry(
        why="binds of a folder (type none, o bind); type block: a disk, of one micro VM at a time"
    ),
    "volumes.*.external": Entry(),
    "volumes.*.labels": Entry(),
    "volumes.*.name": Entry(),
    "configs.*.content": Entry(),
    "configs.*.environment": Entry(),
    "configs.*.external": _refused("there is no store of configs outside of a file"),
    "configs.*.file": Entry(why="uid, gid and mode are those of the file"),
    "configs.*.labels": _ignored("configs have no labels"),
    "configs.*.name": Entry(),
    "configs.*.template_driver": _ignored("contents are not templates"),
    "secrets.*.driver": _refused("there is no store of secrets outside of a file"),
    "secrets.*.driver_opts": _ignored("secrets have no driver"),
    "secrets.*.environment": Entry(),
    "secrets.*.external": _refused("there is no store of secrets outside of a file"),
    "secrets.*.file": Entry(why="uid, gid and mode are those of the file"),
    "secrets.*.labels": _ignored("secrets have no labels"),
    "secrets.*.name": Entry(),
    "secrets.*.template_driver": _ignored("contents are not templates"),
    "models.*.model": Entry(),
    "models.*.name": Entry(why="of no effect, as in Compose"),
    "models.*.context_size": Entry(why="by Docker's model runner"),
    "models.*.runtime_flags": Entry(why="by Docker's model runner from 1.0.6 on"),
    "models.*.x-gemel.endpoint": Entry(why="a server that you run, or a service of the file"),
    "version": _ignored("obsolete"),
}

_HEAD = """\
# What of the Compose specification gemel carries out

Printed from `src/gemel/compose/support.py` by `python -m gemel.compose.support`; a test keeps this
page up to date. `gemel config --lint` tells of a file what of it is ignored or refused in the
runtimes that it chooses, with line and column; `gemel up` prints the same before it starts, and
starts nothing if anything is refused.

Attributes that are not listed with a condition are treated so whatever their value is.
"""
_DIFFERENCES = """\
## Where the canonical form differs from Docker Compose 2.40

`tools/compare_compose.py` runs files through both programs. Of 2649 files that others have written
(test data of compose-go, Compose and podman-compose, docker's examples, catalogues of applications:
vulhub, Dokploy, Coolify, runtipi, Umbrel, CasaOS and more; variables without a default filled in)
both read 1631, and 1629 of these come out equal; both refuse 1006 (most are parts of files that
are completed elsewhere); 12 Compose alone refuses, none gemel alone. What differs, and why:

- `runtime:` values that there are not are refused by `up`, which tells the nearest that there is;
  `config` prints them.
- A limit of 0 (`ulimits: {core: 0}`) is printed as 0; Compose's JSON says `{}`.
- An empty list in an extension (`x-…`) stays one; Compose prints null.
- `volumes.*.bind.create_host_path` is printed wherever it says something, also when false; Compose
  2.40 leaves out false, so that reading its output again means something else.
- `ipam.options` of networks and `pre_start` of services are kept; Compose 2.40 drops or refuses
  them.
- `build.ssh` is printed as `id=path`, which can be read again; Compose prints `id: path`, and fails
  to print it as JSON.
- `models` are printed in JSON too.
- A service of an included file may be changed by the including file, as in newer Compose releases;
  2.40 refuses it.
- Unquoted dates are texts; Compose refuses them.
- The same host and address given twice in `extra_hosts` is printed once.
"""


def document() -> str:
    """docs/compose-support.md."""
    parts = [_HEAD]
    for title, table in (
        ("Services", SERVICE),
        ("build of a service", BUILDS),
        ("Top of the file", TOP),
    ):
        parts.append(f"## {title}\n\n| attribute | container | micro VM | |\n|---|---|---|---|")
        parts += [_row(key, table[key]) for key in sorted(table)]
        parts.append("")
    parts.append(_DIFFERENCES)
    return "\n".join(parts)


def _row(key: str, entry: Entry) -> str:
    values = f" ({entry.values})" if entry.values else ""
    name = key.replace(".*", "[]") if key.startswith(("volumes.*", "ports.*")) else key
    return f"| `{name}`{values} | {entry.container} | {entry.microvm} | {entry.why} |"


if __name__ == "__main__":
    print(document(), end="")
