"""A service of a project as the body of Docker's POST /containers/create, and its relatives.

Labels and names are exactly those of Docker Compose v2, so that either program
finds what the other has started.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from typing import Any

import msgspec

from gemel.compose import extension, options, units
from gemel.compose.confighash import config_hash, network_hash, volume_hash
from gemel.compose.files import DiskReader, Reader
from gemel.compose.mounts import Inherited as Inherited
from gemel.compose.mounts import Mounts
from gemel.compose.mounts import PlacedFile as PlacedFile
from gemel.compose.project import Project, Service
from gemel.errors import InvalidInput
from gemel.model.docker import (
    IPAM,
    ContainerConfig,
    CreateRequest,
    EndpointIPAM,
    EndpointSettings,
    HostConfig,
    IPAMPool,
    NetworkCreate,
    NetworkingConfig,
    VolumeCreate,
)
from gemel.model.image import HealthConfig

Json = dict[str, Any]

COMPOSE_VERSION = "2.40.3"
"""The Compose whose labels these are."""
PREFIX = "com.docker.compose."


class Prepared(msgspec.Struct, frozen=True):
    """A container to make: its name, the request, and files to be there before."""

    name: str
    request: CreateRequest
    files: tuple[PlacedFile, ...] = ()


def container(
    project: Project,
    service: Service,
    index: int,
    *,
    secrets_dir: str,
    image_id: str = "",
    inherit: Sequence[Inherited] = (),
    oneoff: str = "",
    aliases: bool = True,
    auto_remove: bool = False,
    reader: Reader | None = None,
) -> Prepared:
    """The container ``index`` (from 1) of a service.

    secrets_dir: absolute folder below which the caller places ``files``. image_id:
    of the image in use, for Compose's label. oneoff: the slug of a one-off
    container (``run``), whose name and labels differ. aliases: whether it is
    found under the service's name. reader: of a seccomp profile that is named.
    Raises InvalidInput.
    """
    config = service.config
    _check_env_files(service)
    name = project.container_name(service, index)
    if oneoff:
        name = f"{project.name}-{service.name}-run-{oneoff}"
    mounts = Mounts(project, service, secrets_dir, inherit)
    mounts.build()
    host = _host(project, service, mounts)
    host.auto_remove = auto_remove
    host.security_opt = _profiles(project, host.security_opt, reader or DiskReader())
    networking = None
    if not service.network_mode and service.networks:
        networking = _networking(project, service, name, aliases and not oneoff)
    request = CreateRequest(
        **_fields(_container_config(project, service)),
        host_config=host,
        networking_config=networking,
    )
    request.labels = {
        **service.labels,
        **extension.labels(service),
        **({} if oneoff else extension.hooks(service)),
        **_labels(project, service, index, image_id, oneoff),
    }
    if (snapshot := service.gemel.get("snapshot")) is not None:
        # YAML reads a bare `off` as a switch in some of its versions
        request.labels["gemel.snapshot"] = "off" if snapshot in ("off", False) else str(snapshot)
    if mounts.anonymous:
        request.volumes = {target: {} for target in mounts.anonymous}
    request.healthcheck = extension.health(service, health(config.get("healthcheck")))
    return Prepared(name, request, tuple(mounts.files))


def _check_env_files(service: Service) -> None:
    """A service that a profile left out has its env files unread if one is not there."""
    for entry in service.config.get("env_file") or ():
        if entry.get("required", True):
            raise InvalidInput(
                f"env file {entry['path']} of service {service.name} not found or not right"
            )


def _profiles(project: Project, given: list[str] | None, reader: Reader) -> list[str] | None:
    """``seccomp=FILE`` as the profile itself, which is how the engine takes it."""
    made = []
    for entry in given or ():
        key, _, value = entry.replace(":", "=", 1).partition("=")
        if key == "seccomp" and value not in ("", "unconfined", "builtin", "default"):
            text = value
            if not value.lstrip().startswith("{"):
                text = reader.read(os.path.join(project.working_dir, value))
            try:
                entry = f"seccomp={msgspec.json.encode(msgspec.json.decode(text)).decode()}"
            except msgspec.DecodeError as error:
                raise InvalidInput(f"{value[:80]} is no seccomp profile", str(error)) from error
        made.append(entry)
    return made or None


def _fields(config: ContainerConfig) -> dict[str, Any]:
    return {f: getattr(config, f) for f in config.__struct_fields__}


def _labels(
    project: Project, service: Service, index: int, image_id: str, oneoff: str
) -> dict[str, str]:
    depends = [
        f"{name}:{d.condition}:{'true' if d.restart else 'false'}"
        for name, d in sorted(service.depends_on.items())
    ]
    labels = {
        PREFIX + "config-hash": config_hash(service),
        PREFIX + "container-number": str(index),
        PREFIX + "depends_on": ",".join(depends),
        PREFIX + "image": image_id,
        PREFIX + "oneoff": "True" if oneoff else "False",
        PREFIX + "project": project.name,
        PREFIX + "project.config_files": ",".join(project.files),
        PREFIX + "project.working_dir": project.working_dir,
        PREFIX + "service": service.name,
        PREFIX + "version": COMPOSE_VERSION,
    }
    if oneoff:
        labels[PREFIX + "slug"] = oneoff
        del labels[PREFIX + "container-number"]
    return labels


def _container_config(project: Project, service: Service) -> ContainerConfig:
    config = service.config
    environment = service.environment
    grace = service.stop_grace_period
    return ContainerConfig(
        hostname=config.get("hostname") or "",
        domainname=config.get("domainname") or "",
        user=config.get("user") or "",
        attach_stdout=True,
        attach_stderr=True,
        exposed_ports=_exposed(service) or None,
        tty=service.tty,
        open_stdin=bool(config.get("stdin_open")),
        env=[k if v is None else f"{k}={v}" for k, v in sorted(environment.items())] or None,
        cmd=config.get("command"),
        image=project.image_of(service),
        working_dir=config.get("working_dir") or "",
        entrypoint=config.get("entrypoint"),
        stop_signal=config.get("stop_signal") or "",
        stop_timeout=None if grace is None else int(grace),
    )


def _exposed(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {f"{p['target']}/{p.get('protocol', 'tcp')}": {} for p in service.ports}
    for entry in service.config.get("expose") or ():
        ports, _, protocol = str(entry).partition("/")
        first, dash, last = ports.partition("-")
        for port in range(int(first), int(last if dash else first) + 1):
            found[f"{port}/{protocol or 'tcp'}"] = {}
    return found


def health(check: Json | None) -> HealthConfig | None:
    """A health check as the engine takes it (durations in nanoseconds)."""
    if not check:
        return None
    test = check.get("test")
    if check.get("disable"):
        test = ["NONE"]

    def nanoseconds(key: str) -> int:
        return units.duration(check[key]) if check.get(key) else 0

    return HealthConfig(
        test=test,
        interval=nanoseconds("interval"),
        timeout=nanoseconds("timeout"),
        retries=int(check.get("retries") or 0),
        start_period=nanoseconds("start_period"),
        start_interval=nanoseconds("start_interval"),
    )


def _host(project: Project, service: Service, mounts: Mounts) -> HostConfig:
    host = HostConfig(
        binds=mounts.binds or None,
        mounts=mounts.specs or None,
        volumes_from=_volumes_from(project, service) or None,
        port_bindings=options.port_bindings(service.ports) or None,
        network_mode=_network_mode(project, service),
        links=_links(project, service) or None,
        runtime=service.config.get("runtime") or "",
    )
    options.apply(service, host, project)
    return host


def first_name(project: Project, service: str) -> str:
    """The name of a service's first container, by which others refer to it."""
    found = project.services.get(service) or project.disabled.get(service)
    return project.container_name(found, 1) if found else f"{project.name}-{service}-1"


def _shared(project: Project, mode: str) -> str:
    """A namespace mode, ``service:x`` as the container that is meant."""
    if mode.startswith("service:"):
        return f"container:{first_name(project, mode.removeprefix('service:'))}"
    return mode


def _network_mode(project: Project, service: Service) -> str:
    if service.network_mode:
        return _shared(project, service.network_mode)
    networks = list(service.networks)
    return project.network_name(networks[0]) if networks else "none"


def _links(project: Project, service: Service) -> list[str]:
    """links and external_links as ``container:alias``."""
    made = []
    for link in service.config.get("links") or ():
        name, _, alias = link.partition(":")
        container = first_name(project, name)
        made += [f"{container}:{alias or name}"]
    for link in service.config.get("external_links") or ():
        name, _, alias = link.partition(":")
        made.append(f"{name}:{alias or name}")
    return made


def _volumes_from(project: Project, service: Service) -> list[str]:
    made = []
    for source in service.config.get("volumes_from") or ():
        if source.startswith("container:"):
            made.append(source.removeprefix("container:"))
        else:
            name, _, mode = source.partition(":")
            container = first_name(project, name)
            made.append(f"{container}:{mode}" if mode else container)
    return made


def _networking(
    project: Project, service: Service, container: str, aliases: bool
) -> NetworkingConfig:
    made: dict[str, EndpointSettings | None] = {}
    for position, (key, joined) in enumerate(service.networks.items()):
        names = [container]
        if aliases:
            names += [service.name, *(joined.get("aliases") or ())]
        address4, address6 = joined.get("ipv4_address"), joined.get("ipv6_address")
        local = joined.get("link_local_ips")
        driver_opts = dict(joined.get("driver_opts") or {})
        if joined.get("interface_name"):
            driver_opts.setdefault("com.docker.network.endpoint.ifname", joined["interface_name"])
        mac = joined.get("mac_address") or ""
        if not mac and position == 0:
            mac = service.config.get("mac_address") or ""
        made[project.network_name(key)] = EndpointSettings(
            aliases=list(dict.fromkeys(names)),
            ipam_config=EndpointIPAM(
                ipv4_address=address4 or "", ipv6_address=address6 or "", link_local_ips=local
            )
            if address4 or address6 or local
            else None,
            mac_address=mac,
            driver_opts=driver_opts or None,
            gw_priority=int(joined.get("gw_priority") or 0),
            links=_links(project, service) or None,
        )
    return NetworkingConfig(endpoints_config=made)


def network(project: Project, key: str) -> NetworkCreate:
    """The request for a network of the file."""
    config = project.networks[key]
    ipam = config.get("ipam") or {}
    pools = [
        IPAMPool(
            subnet=pool.get("subnet") or "",
            ip_range=pool.get("ip_range") or "",
            gateway=pool.get("gateway") or "",
            auxiliary_addresses=pool.get("aux_addresses") or None,
        )
        for pool in ipam.get("config") or ()
        if ":" not in (pool.get("subnet") or "")
    ]
    return NetworkCreate(
        name=project.network_name(key),
        driver="bridge" if config.get("driver") in (None, "", "default") else config["driver"],
        internal=bool(config.get("internal")),
        attachable=bool(config.get("attachable")),
        options=config.get("driver_opts") or None,
        ipam=IPAM(
            driver=ipam.get("driver") or "default",
            options=ipam.get("options") or None,
            config=pools or None,
        )
        if ipam
        else None,
        labels={
            **(config.get("labels") or {}),
            PREFIX + "config-hash": network_hash(config),
            PREFIX + "network": key,
            PREFIX + "project": project.name,
            PREFIX + "version": COMPOSE_VERSION,
        },
    )


def volume(project: Project, key: str) -> VolumeCreate:
    """The request for a volume of the file."""
    config = project.volumes[key]
    return VolumeCreate(
        name=project.volume_name(key),
        driver=config.get("driver") or "local",
        driver_opts=config.get("driver_opts") or None,
        labels={
            **(config.get("labels") or {}),
            PREFIX + "config-hash": volume_hash(config),
            PREFIX + "project": project.name,
            PREFIX + "version": COMPOSE_VERSION,
            PREFIX + "volume": key,
        },
    )
