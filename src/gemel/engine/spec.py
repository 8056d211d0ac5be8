"""From a container's record to the InstanceSpec that a runtime starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gemel.engine import otlp, resolve, rotation
from gemel.engine.core import Core, Once
from gemel.engine.records import Container, EndpointRecord, MountPoint
from gemel.errors import Conflict, NotFound, Unsupported
from gemel.host import files
from gemel.model.docker import HostConfig
from gemel.model.instance import (
    Device,
    GuestFile,
    InstanceSpec,
    Interface,
    Mount,
    MountKind,
    Network,
    Process,
    Resources,
    Ulimit,
)
from gemel.net.resolv import hosts_file, resolv_conf


def interfaces(core: Core, one: Container) -> tuple[Interface, ...]:
    """The network interfaces of a container, in order; the first with a way out has the route."""
    result = []
    ends = sorted(one.endpoints, key=lambda e: e.index)
    outward = next((e for e in ends if not core.networks[e.network_id].internal), None)
    for end in ends:
        network = core.networks[end.network_id]
        result.append(
            Interface(
                name=f"eth{end.index}",
                host=core.net.port_name(one.id, end.index),
                bridge=network.bridge,
                mac=end.mac,
                address=f"{end.address}/{network.subnet.partition('/')[2]}",
                gateway=network.gateway,
                mtu=network.mtu,
                default_route=end is outward,
            )
        )
    return tuple(result)


def _other(core: Core, mode: str) -> Container:
    other = core.container(mode.partition(":")[2])
    if not other.state.running:
        raise Conflict(
            f"cannot join the namespace of container {other.name}: it is not running",
            resolution=f"start {other.name} first",
        )
    return other


def _joined(core: Core, mode: str, kind: str, *, must: bool) -> str:
    """``container:ID`` as the namespace's path; other modes as they are.

    must: it is to be started; else the other one may be away: nothing is joined then.
    """
    if not mode.startswith("container:"):
        return mode
    try:
        return f"/proc/{_other(core, mode).state.pid}/ns/{kind}"
    except (Conflict, NotFound):
        if must:
            raise
        return ""


def network(core: Core, one: Container, namespace: Path | None) -> Network:
    """The instance's network. namespace: of its own, if it was given one."""
    mode = (one.request.host_config or HostConfig()).network_mode
    if mode == "host":
        return Network(namespace=None)
    if mode.startswith("container:"):
        return Network(namespace=Path(f"/proc/{_other(core, mode).state.pid}/ns/net"))
    return Network(namespace=namespace, interfaces=interfaces(core, one))


def hostname(one: Container) -> str:
    """The host name: as asked for, else the short id."""
    return one.request.hostname or one.id[:12]


def write_files(core: Core, one: Container) -> tuple[GuestFile, ...]:
    """Writes /etc/hostname, /etc/hosts and /etc/resolv.conf, and gives them back.

    A target that the user mounts something at is left to the user.
    """
    host = one.request.host_config or HostConfig()
    folder = files.folder(core.paths.instance(one.id) / "files", 0o711)
    ends = sorted(one.endpoints, key=lambda e: e.index)
    addresses = [end.address for end in ends if end.address]
    gateways = [core.networks[end.network_id].gateway for end in ends]
    extra = [_gateway(entry, gateways) for entry in [*(host.extra_hosts or []), *_links(core, one)]]
    texts = {"hostname": hostname(one) + "\n"}
    if host.network_mode == "host":
        texts["hosts"] = _host_text("/etc/hosts")
        texts["resolv.conf"] = _host_text("/etc/resolv.conf")
    else:
        texts["hosts"] = hosts_file(
            hostname=hostname(one),
            domainname=one.request.domainname,
            addresses=addresses,
            extra_hosts=extra,
        )
        texts["resolv.conf"] = resolv_conf(
            gateways=gateways,
            dns=host.dns or [],
            search=host.dns_search or [],
            options=host.dns_options or [],
            host=_host_text("/etc/resolv.conf"),
        )
    taken = {point.target for point in one.mounts}
    result = []
    for name, text in texts.items():
        target = f"/etc/{name}"
        if target in taken:
            continue
        path = folder / name
        _overwrite(path, text)
        result.append(GuestFile(target=target, source=path))
    return tuple(result)


def _overwrite(path: Path, text: str) -> None:
    """Writes in place: a running container has the file bound, so its inode must stay."""
    try:
        if path.read_text() != text:
            path.write_text(text)
    except FileNotFoundError:
        files.write(path, text, mode=0o644)


def _host_text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _gateway(entry: str, gateways: list[str]) -> str:
    host, _, address = entry.partition(":")
    if address == "host-gateway" and gateways:
        return f"{host}:{gateways[0]}"
    return entry


def _links(core: Core, one: Container) -> list[str]:
    """``--link other:alias`` and links of endpoints as lines of /etc/hosts (legacy)."""
    result = [line for end in one.endpoints for line in _endpoint_links(core, end)]
    for link in (one.request.host_config or HostConfig()).links or []:
        name, _, alias = link.partition(":")
        other = core.container(name)
        address = next((e.address for e in other.endpoints if e.address), "")
        if address:
            result.append(f"{alias.rpartition('/')[2] or other.name}:{address}")
    return result


def _endpoint_links(core: Core, end: EndpointRecord) -> Iterator[str]:
    """Links on one network; what is not there (yet) has no name, as with dockerd."""
    for link in end.settings.links or []:
        name, _, alias = link.partition(":")
        with contextlib.suppress(NotFound):
            other = core.container(name)
            for place in other.endpoints:
                if place.network_id == end.network_id and place.address:
                    yield f"{alias or other.name}:{place.address}"


def mounts(core: Core, one: Container) -> tuple[Mount, ...]:
    """The container's mounts as a runtime takes them."""
    result = []
    for point in one.mounts:
        if point.kind == "tmpfs":
            result.append(
                Mount(
                    kind=MountKind.TMPFS,
                    target=point.target,
                    readonly=point.readonly,
                    size=point.size,
                    mode=point.mode,
                    options=tuple(point.options),
                )
            )
            continue
        source = Path(point.source)
        volume = core.volumes.get(point.name)
        block = volume is not None and volume.block
        if block:
            _check_block(core, one, point)
        if point.subpath:
            source = _subpath(source, point.subpath)
        result.append(
            Mount(
                kind=MountKind.BIND,
                target=point.target,
                source=source,
                readonly=point.readonly,
                volume=point.name,
                block=block,
            )
        )
    return tuple(result)


def _check_block(core: Core, one: Container, point: MountPoint) -> None:
    if not core.runtime(one).capabilities.block_volumes:
        raise Unsupported(
            f"the volume {point.name} is a block volume (driver option type: block), a disk that"
            f" no {one.runtime.value} can have",
            details=f"container {one.name}",
            resolution="run this service with runtime: microvm; or copy what is in the volume"
            " with `gemel cp` into one without that option, which all can share",
        )
    if point.subpath:
        raise Unsupported(f"a folder of the block volume {point.name} cannot be mounted alone")


def _subpath(source: Path, sub: str) -> Path:
    inside = (source / sub).resolve()
    if not inside.is_relative_to(source.resolve()) or not inside.exists():
        raise Conflict(f"the volume has no folder {sub!r}", details=f"subpath of {source}")
    return inside


def process(one: Container, size: tuple[int, int] | None = None) -> Process:
    """The first process of a container."""
    request = one.request
    host = request.host_config or HostConfig()
    own = [item for item in request.env or [] if "=" in item]
    env = [f"HOSTNAME={hostname(one)}", *own]
    if any(item.startswith("HOSTNAME=") for item in own):
        env = own
    if request.tty and not any(item.startswith("TERM=") for item in env):
        env.append("TERM=xterm")
    return Process(
        argv=tuple(one.argv),
        env=tuple(env),
        cwd=request.working_dir or "/",
        user=request.user,
        groups=tuple(host.group_add or []),
        tty=request.tty,
        stdin=request.open_stdin,
        size=size or _console(host),
        privileged=host.privileged,
    )


def _with_otlp(core: Core, one: Container, made: Process) -> Process:
    told = otlp.environment(core, one)
    return msgspec.structs.replace(made, env=(*made.env, *told)) if told else made


def _console(host: HostConfig) -> tuple[int, int] | None:
    """Rows and columns that the client's terminal had; zeros say that it had none."""
    size = host.console_size or []
    return (size[0], size[1]) if len(size) == 2 and all(0 < n < 65536 for n in size) else None


def check_capabilities(core: Core, one: Container) -> None:
    """Raises Unsupported for what the container's runtime cannot do, before anything starts."""
    able = core.runtime(one).capabilities
    host = one.request.host_config or HostConfig()
    shared = [
        f"{kind}: {mode}"
        for kind, mode in (("network_mode", host.network_mode), ("pid", host.pid_mode))
        if mode.startswith("container:") or (mode == "host" and kind != "network_mode")
    ]
    problems = []
    if host.network_mode == "host" and not able.host_network:
        problems.append("the host's network (network_mode: host)")
    if shared and not able.shared_namespaces:
        problems.append(f"namespaces shared with others ({', '.join(shared)})")
    if (host.devices or host.device_cgroup_rules) and not able.devices:
        problems.append("devices of the host")
    if host.privileged and not able.privileged:
        problems.append("privileged mode")
    if problems:
        raise Unsupported(
            f"a {one.runtime.value} cannot have {' or '.join(problems)}",
            details=f"container {one.name}",
            resolution="leave that out, or run this service as a container",
        )


def build(
    core: Core, one: Container, *, rootfs: Path | None, namespace: Path | None, write: bool
) -> InstanceSpec:
    """The whole specification. write: also write the files of /etc.

    Raises Conflict, NotFound, Unsupported.
    """
    host = one.request.host_config or HostConfig()
    image = core.images.find(one.image_id)
    live = core.live.get(one.id)
    pid_mode = _joined(core, host.pid_mode, "pid", must=write)
    ipc_mode = _joined(core, host.ipc_mode, "ipc", must=write)
    return InstanceSpec(
        id=one.id,
        name=one.name,
        runtime=one.runtime,
        image_id=one.image_id,
        root_image=core.images.disk(image),
        rootfs=rootfs,
        layer=core.paths.layer(one.id),
        process=_with_otlp(core, one, process(one, live.size if live else None)),
        hostname=hostname(one),
        domainname=one.request.domainname,
        mounts=mounts(core, one),
        files=write_files(core, one) if write else (),
        resources=_resources(one, host),
        security=resolve.security(host),
        network=network(core, one, namespace) if write else Network(namespace=namespace),
        devices=tuple(
            Device(
                source=d.path_on_host,
                target=d.path_in_container or d.path_on_host,
                permissions=d.cgroup_permissions or "rwm",
            )
            for d in host.devices or []
        ),
        device_rules=tuple(resolve.device_rule(r) for r in host.device_cgroup_rules or []),
        sysctls=(*_core_pattern(core, one), *(host.sysctls or {}).items()),
        init=bool(host.init),
        pid_mode=pid_mode,
        ipc_mode=ipc_mode if ipc_mode not in ("private", "shareable", "none") else "",
        stop_signal=resolve.signal_number(one.request.stop_signal),
        log=core.paths.instance(one.id) / "log",
        log_size=rotation.limits(one).size,
        labels=tuple((one.request.labels or {}).items()),
    )


def _dumps_core(one: Container) -> bool:
    return (one.request.labels or {}).get("gemel.core") == "true"


def _resources(one: Container, host: HostConfig) -> Resources:
    """Limits; a core dump may be of any size where one is asked for."""
    found = resolve.resources(host)
    if not _dumps_core(one) or any(limit.name == "core" for limit in found.ulimits):
        return found
    limits = (*found.ulimits, Ulimit(name="core", soft=-1, hard=-1))
    return msgspec.structs.replace(found, ulimits=limits)


def _core_pattern(core: Core, one: Container) -> tuple[tuple[str, str], ...]:
    """Where a guest's kernel writes core dumps. That of containers is the host's: left alone."""
    if not _dumps_core(one) or core.runtime(one).capabilities.shares_kernel:
        return ()
    return (("kernel.core_pattern", "/core.%e.%p"),)


def once(full: InstanceSpec, how: Once) -> InstanceSpec:
    """The same, for a start that differs from what is kept."""
    env = (*full.process.env, *how.env)
    return msgspec.structs.replace(
        full, halted=how.halted, process=msgspec.structs.replace(full.process, env=env)
    )
