"""What becomes of every field that Docker's API has in what is created.

The tables name all fields of API 1.24 to 1.51. ``warnings`` looks at a request for
those that are known and not carried out: it gives a sentence for each, or refuses
the request where leaving the field out would change what runs. docs/api-fields.md
is printed from here (``python -m gemel.model.fields``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gemel.errors import Unsupported


class Fate(enum.StrEnum):
    """What becomes of a field."""

    DONE = "carried out"
    WARNED = "warned of"
    REFUSED = "refused"
    MEANS_NOTHING = "means nothing here"


class Field(msgspec.Struct, frozen=True):
    """A field. why: what is not done. when: of which values that is so; else of all that are
    not empty. ``REFUSED`` without ``when``: the engine itself looks at the value.
    """

    fate: Fate = Fate.DONE
    why: str = ""
    when: Callable[[Any], bool] | None = None
    values: str = ""


Table = dict[str, Field]
_EMPTY: tuple[Any, ...] = (None, False, 0, "", [], {})


def _done(names: str, why: str = "") -> Table:
    return dict.fromkeys(names.split(), Field(why=why))


def _warned(
    names: str, why: str, when: Callable[[Any], bool] | None = None, values: str = ""
) -> Table:
    return dict.fromkeys(names.split(), Field(Fate.WARNED, why, when, values))


def _refused(
    names: str, why: str, when: Callable[[Any], bool] | None = None, values: str = ""
) -> Table:
    return dict.fromkeys(names.split(), Field(Fate.REFUSED, why, when, values))


def _nothing(names: str, why: str) -> Table:
    return dict.fromkeys(names.split(), Field(Fate.MEANS_NOTHING, why))


def _filled(value: Any) -> bool:
    return value not in _EMPTY


CONFIG: Table = {
    **_done(
        "Hostname Domainname User ExposedPorts Tty OpenStdin StdinOnce Env Cmd Healthcheck Image"
        " Volumes WorkingDir Entrypoint NetworkDisabled MacAddress Labels StopSignal StopTimeout"
        " Shell HostConfig NetworkingConfig"
    ),
    **_nothing("AttachStdin AttachStdout AttachStderr", "clients ask themselves to attach"),
    **_nothing("ArgsEscaped", "of Windows containers only"),
    **_warned("OnBuild", "of images: a container has no use for it"),
}

_WINDOWS = "of Windows containers only"
_KERNEL = "Linux has given it up"
_BLKIO = "block I/O is not limited"

HOST: Table = {
    **_done(
        "Binds LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumesFrom CapAdd"
        " CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links OomScoreAdj Privileged"
        " PublishAllPorts ReadonlyRootfs SecurityOpt Tmpfs ShmSize Sysctls Runtime CpuShares"
        " Memory NanoCpus CpuPeriod CpuQuota CpusetCpus CpusetMems Devices MemoryReservation"
        " MemorySwap OomKillDisable Init PidsLimit Ulimits Mounts ConsoleSize"
    ),
    **_done("IpcMode PidMode", "a micro VM shares no namespace, which is refused"),
    **_nothing("ContainerIDFile", "the client writes that file"),
    **_warned("Annotations", "annotations are not passed on"),
    **_warned("StorageOpt DiskQuota", "a writable layer has no limit"),
    **_warned("CgroupParent", "gemel keeps its own control groups"),
    **_warned("Cgroup", "control groups are not shared"),
    **_warned("CgroupnsMode", "always private", lambda v: v not in ("", "private"), "host"),
    **_warned("UTSMode", "every instance has its own host name", lambda v: bool(v), "host"),
    **_refused("Isolation", _WINDOWS, lambda v: v not in ("", "default")),
    **_warned("CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth", _WINDOWS),
    **_warned(
        "BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps"
        " BlkioDeviceReadIOps BlkioDeviceWriteIOps",
        _BLKIO,
    ),
    **_warned("CpuRealtimePeriod CpuRealtimeRuntime", "real-time scheduling is not set"),
    **_warned("KernelMemory KernelMemoryTCP", _KERNEL),
    **_warned("MemorySwappiness", "swappiness is not set", lambda v: v not in (None, -1), "not -1"),
    **_warned(
        "MaskedPaths ReadonlyPaths",
        "the usual paths are protected, or none (both empty)",
        _filled,
        "lists of one's own",
    ),
    **_warned("Capabilities", "use CapAdd and CapDrop"),
    **_warned("InitPath", "the machine's tini is used"),
    **_warned(
        "UsernsMode",
        "there are no user namespaces, as in dockerd without userns-remap",
        lambda v: v not in (None, "", "host"),
        "not host",
    ),
    **_refused("DeviceRequests", "GPUs are not passed on"),
    **_done("DeviceCgroupRules", "a micro VM has no devices of the host, which is refused"),
    **_refused("VolumeDriver", "only local, where a volume has to be made"),
}

ENDPOINT: Table = {
    **_done("IPAMConfig Links Aliases MacAddress GwPriority"),
    **_nothing(
        "NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address"
        " GlobalIPv6PrefixLen DNSNames",
        "the engine tells it",
    ),
    **_warned("DriverOpts", "networks have no options for an endpoint"),
}
ENDPOINT_IPAM: Table = {
    **_done("IPv4Address"),
    **_warned("IPv6Address", "networks are IPv4"),
    **_warned("LinkLocalIPs", "link-local addresses are not set"),
}
MOUNT: Table = {
    **_done("Type Source Target ReadOnly BindOptions VolumeOptions TmpfsOptions ImageOptions"),
    **_nothing("Consistency", "of Docker Desktop only"),
    **_refused("ClusterOptions", "only bind, volume, tmpfs and image", _filled),
}
LOG: Table = {
    **_refused("Type", "json-file, local, none, journald, k8s-file are all the engine's own log"),
    **_warned(
        "Config",
        "of a log's options max-size and max-file alone are used",
        lambda v: bool(set(v) - {"max-size", "max-file"}),
        "others than max-size and max-file",
    ),
}
BIND: Table = {
    **_done("CreateMountpoint"),
    **_warned(
        "Propagation",
        "always private",
        lambda v: v not in (None, "", "private", "rprivate"),
        "shared, slave",
    ),
    **_warned("NonRecursive ReadOnlyNonRecursive", "mounts below a bind are bound too"),
    **_refused("ReadOnlyForceRecursive", "mounts below a read-only bind stay as they are", _filled),
}
VOLUME_OPTIONS: Table = {
    **_done("NoCopy Subpath"),
    **_warned("Labels", "make the volume first, with its labels"),
    **_refused(
        "DriverConfig",
        "only local, without options; make the volume first",
        lambda v: bool(v) and (v.get("Name") not in (None, "", "local") or bool(v.get("Options"))),
        "another driver, options",
    ),
}
TMPFS: Table = {
    **_done("SizeBytes Mode"),
    **_warned("Options", "a tmpfs is nosuid, nodev"),
}
NETWORK: Table = {
    **_done("Name Internal Attachable IPAM Labels Options"),
    **_done("Driver", "bridge alone"),
    **_nothing("CheckDuplicate", "a name is never given twice"),
    **_refused("EnableIPv6", "networks are IPv4"),
    **_refused("EnableIPv4", "networks are IPv4", lambda v: v is False, "false"),
    **_refused("Ingress", "of Swarm only", _filled),
    **_refused("ConfigOnly ConfigFrom", "networks are configured one by one", _filled),
    **_refused("Scope", "networks are local", lambda v: v not in (None, "", "local"), "not local"),
}
IPAM: Table = {
    **_refused("Driver", "only default", lambda v: v not in (None, "", "default"), "others"),
    **_warned("Options", "the default driver has none"),
    **_warned("Config", "the first pool is used", lambda v: bool(v) and len(v) > 1, "several"),
}
POOL: Table = _done("Subnet IPRange Gateway AuxiliaryAddresses")
VOLUME: Table = {
    **_done("Name Driver DriverOpts Labels"),
    **_refused("ClusterVolumeSpec", "of Swarm only", _filled),
}
EXEC: Table = _done(
    "AttachStdin AttachStdout AttachStderr ConsoleSize DetachKeys Tty Env Cmd Privileged User"
    " WorkingDir"
)
UPDATE: Table = {
    **_done(
        "CpuShares Memory CpuPeriod CpuQuota CpusetCpus CpusetMems MemoryReservation MemorySwap"
        " NanoCpus PidsLimit RestartPolicy"
    ),
    **{
        name: field
        for name, field in HOST.items()
        if name.startswith(("Blkio", "CpuReal", "Kernel", "CpuCount", "CpuPercent", "IOMax"))
        or name in ("CgroupParent", "MemorySwappiness")
    },
    **_warned("Devices OomKillDisable Init Ulimits", "holds from creation on; make it anew"),
    **_refused("DeviceCgroupRules DeviceRequests", "devices stay as they were", _filled),
}

#: Sections: where in the body, what fields. ``*``: each value of an object or list.
CREATE = {
    "": CONFIG,
    "HostConfig": HOST,
    "HostConfig.LogConfig": LOG,
    "HostConfig.Mounts.*": MOUNT,
    "HostConfig.Mounts.*.BindOptions": BIND,
    "HostConfig.Mounts.*.VolumeOptions": VOLUME_OPTIONS,
    "HostConfig.Mounts.*.TmpfsOptions": TMPFS,
    "NetworkingConfig.EndpointsConfig.*": ENDPOINT,
    "NetworkingConfig.EndpointsConfig.*.IPAMConfig": ENDPOINT_IPAM,
}
CONNECT = {"EndpointConfig": ENDPOINT, "EndpointConfig.IPAMConfig": ENDPOINT_IPAM}
NETWORK_CREATE = {"": NETWORK, "IPAM": IPAM, "IPAM.Config.*": POOL}
VOLUME_CREATE = {"": VOLUME}
EXEC_CREATE = {"": EXEC}
CONTAINER_UPDATE = {"": UPDATE}

Sections = dict[str, Table]


def warnings(body: Any, sections: Sections) -> list[str]:
    """A sentence for each field that has no effect. body: the request's JSON, as it came.

    Names match in any case, as everywhere. Raises Unsupported for what is refused.
    """
    found: list[str] = []
    for place, table in sections.items():
        known = {name.lower(): (name, field) for name, field in table.items()}
        for value in _at(body, place.split(".") if place else []):
            if isinstance(value, dict):
                found += _of(value, known)
    return list(dict.fromkeys(found))


def _of(value: dict[str, Any], known: dict[str, tuple[str, Field]]) -> Iterator[str]:
    for key, item in value.items():
        name, field = known.get(key.lower(), ("", Field()))
        if field.fate is Fate.WARNED and _hit(field, item):
            yield f"{name} has no effect: {field.why}"
        elif field.fate is Fate.REFUSED and field.when is not None and _hit(field, item):
            raise Unsupported(f"{name} is not supported", field.why, f"leave {name} out")


def _hit(field: Field, value: Any) -> bool:
    if field.when is None:
        return _filled(value)
    if value in (None, "", [], {}):
        return False
    try:
        return field.when(value)
    except (AttributeError, TypeError):
        return True  # of another type: what decodes the body says so


def _at(value: Any, parts: list[str]) -> Iterator[Any]:
    if not parts:
        yield value
    elif parts[0] == "*":
        items = value.values() if isinstance(value, dict) else value
        for item in items if isinstance(value, dict | list) else ():
            yield from _at(item, parts[1:])
    elif isinstance(value, dict):
        for key, item in value.items():
            if key.lower() == parts[0].lower():
                yield from _at(item, parts[1:])


_HEAD = """\
# What becomes of every field of Docker's API

Printed from `src/gemel/model/fields.py` by `python -m gemel.model.fields`; a test keeps this page
up to date, and holds it against the list of fields of API 1.24 to 1.51. A field that is *warned of*
has no effect, and the answer's `Warnings` (of a network: `Warning`) says so; `docker` prints that.
An empty value is never complained about. What the runtimes differ in is in
[compose-support.md](compose-support.md).
"""


def document() -> str:
    """docs/api-fields.md."""
    parts = [_HEAD]
    for title, sections in (
        ("POST /containers/create", CREATE),
        ("POST /containers/{id}/update", CONTAINER_UPDATE),
        ("POST /networks/create", NETWORK_CREATE),
        ("POST /volumes/create", VOLUME_CREATE),
        ("POST /containers/{id}/exec", EXEC_CREATE),
    ):
        parts.append(f"## `{title}`\n\n| field | | |\n|---|---|---|")
        for place, table in sections.items():
            above = f"{place}." if place else ""
            parts += [_row(above + name, table[name]) for name in sorted(table)]
        parts.append("")
    return "\n".join(parts)


def _row(name: str, field: Field) -> str:
    values = f" ({field.values})" if field.values else ""
    return f"| `{name}`{values} | {field.fate} | {field.why} |"


if __name__ == "__main__":
    print(document(), end="")
