"""Docker's wire types: bodies of requests that the engine keeps, and of answers.

Names and meanings: Docker Engine API v1.47, definitions of ContainerConfig,
HostConfig, EndpointSettings, IPAM, Network, Volume. What a field leaves out
is Docker's default. Unknown fields are ignored, as dockerd does; fields that
are known and not honoured are refused or warned of by the engine.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gemel.model.image import HealthConfig


class Wire(msgspec.Struct, kw_only=True, rename="pascal"):
    """Base: Docker's PascalCase names; acronyms are named field by field."""


class PortBinding(Wire):
    host_ip: str = msgspec.field(name="HostIp", default="")
    host_port: str = ""


class RestartPolicy(Wire):
    name: str = "no"
    """no, always, unless-stopped, on-failure."""
    maximum_retry_count: int = 0


class LogConfig(Wire):
    type: str = "json-file"
    config: dict[str, str] | None = None


class UlimitSpec(Wire):
    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceMapping(Wire):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class MountSpec(Wire):
    """An entry of HostConfig.Mounts."""

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: dict[str, Any] | None = None
    volume_options: dict[str, Any] | None = None
    tmpfs_options: dict[str, Any] | None = None
    image_options: dict[str, Any] | None = None


class ContainerConfig(Wire):
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class HostConfig(Wire):
    binds: list[str] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig | None = None
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy | None = None
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[MountSpec] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    cpu_count: int = 0
    """Of other systems, and without a meaning here; so are they in dockerd."""
    cpu_percent: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[UlimitSpec] | None = None
    console_size: list[int] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class EndpointIPAM(Wire):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: list[str] | None = msgspec.field(name="LinkLocalIPs", default=None)


class EndpointSettings(Wire):
    ipam_config: EndpointIPAM | None = msgspec.field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = msgspec.field(name="NetworkID", default="")
    endpoint_id: str = msgspec.field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = msgspec.field(name="IPAddress", default="")
    ip_prefix_len: int = msgspec.field(name="IPPrefixLen", default=0)
    dns_names: list[str] | None = msgspec.field(name="DNSNames", default=None)


class NetworkingConfig(Wire):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateRequest(ContainerConfig, kw_only=True, rename="pascal"):
    """Body of POST /containers/create: a ContainerConfig with two more parts."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class IPAMPool(Wire):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Wire):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMPool] | None = None


class NetworkCreate(Wire):
    """Body of POST /networks/create."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    ipam: IPAM | None = msgspec.field(name="IPAM", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class VolumeCreate(Wire):
    """Body of POST /volumes/create."""

    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class ExecCreate(Wire):
    """Body of POST /containers/ID/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class DebugCreate(ExecCreate):
    """Body of POST /gemel/containers/ID/debug: a program of a toolbox beside an instance.

    image: another toolbox than gemel's own. ended: of an instance that does not run.
    """

    image: str = ""
    ended: bool = False
