"""A service's attributes that become fields of Docker's HostConfig."""

from __future__ import annotations

from typing import Any

from gemel.compose.project import Project, Service
from gemel.model.docker import (
    DeviceMapping,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    UlimitSpec,
)

Json = dict[str, Any]

_TEXTS = {
    "cgroup_parent": "cgroup_parent",
    "cgroup": "cgroupns_mode",
    "cpuset": "cpuset_cpus",
    "userns_mode": "userns_mode",
    "isolation": "isolation",
}
_LISTS = {
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "device_cgroup_rules": "device_cgroup_rules",
    "dns": "dns",
    "dns_opt": "dns_options",
    "dns_search": "dns_search",
    "group_add": "group_add",
}
_NUMBERS = {
    "cpu_period": "cpu_period",
    "cpu_quota": "cpu_quota",
    "cpu_shares": "cpu_shares",
    "mem_limit": "memory",
    "mem_reservation": "memory_reservation",
    "memswap_limit": "memory_swap",
    "oom_score_adj": "oom_score_adj",
    "shm_size": "shm_size",
}
_FLAGS = {
    "privileged": "privileged",
    "read_only": "readonly_rootfs",
}
_SYSTEM_PATHS = "systempaths=unconfined"


def apply(service: Service, host: HostConfig, project: Project) -> None:
    """Fills in what the service says of ``host``, in place."""
    config = service.config
    for table, convert in ((_TEXTS, str), (_LISTS, list), (_NUMBERS, int), (_FLAGS, bool)):
        for key, field in table.items():
            if config.get(key):
                setattr(host, field, convert(config[key]))
    _namespaces(config, host, project)
    _resources(config, host)
    _deploy(config.get("deploy") or {}, host)
    _security(config, host)
    host.restart_policy = restart_policy(service)
    if config.get("init") is not None:
        host.init = bool(config["init"])
    if config.get("extra_hosts"):
        host.extra_hosts = [entry.replace("=", ":", 1) for entry in config["extra_hosts"]]
    if config.get("sysctls"):
        host.sysctls = dict(config["sysctls"])
    if config.get("tmpfs"):
        host.tmpfs = {e.partition(":")[0]: e.partition(":")[2] for e in config["tmpfs"]}
    logging = config.get("logging")
    if logging:
        host.log_config = LogConfig(
            type=logging.get("driver") or "", config=logging.get("options") or None
        )


def _namespaces(config: Json, host: HostConfig, project: Project) -> None:
    from gemel.compose.requests import first_name

    for key, field in (("ipc", "ipc_mode"), ("pid", "pid_mode"), ("uts", "uts_mode")):
        mode = config.get(key) or ""
        if mode.startswith("service:"):
            mode = f"container:{first_name(project, mode.removeprefix('service:'))}"
        setattr(host, field, mode)


def _resources(config: Json, host: HostConfig) -> None:
    if config.get("cpus"):
        host.nano_cpus = int(float(config["cpus"]) * 1e9)
    if config.get("mem_swappiness"):
        host.memory_swappiness = int(config["mem_swappiness"])
    if config.get("pids_limit"):
        host.pids_limit = int(config["pids_limit"])
    if config.get("oom_kill_disable"):
        host.oom_kill_disable = True
    host.blkio_weight = int((config.get("blkio_config") or {}).get("weight") or 0)
    devices = [d for d in config.get("devices") or () if isinstance(d, dict)]
    if devices:
        host.devices = [
            DeviceMapping(
                path_on_host=d["source"],
                path_in_container=d.get("target") or d["source"],
                cgroup_permissions=d.get("permissions") or "rwm",
            )
            for d in devices
        ]
    requests = [device_request(d, "gpu") for d in config.get("gpus") or ()]
    if requests:
        host.device_requests = requests
    ulimits = config.get("ulimits")
    if ulimits:
        host.ulimits = [_ulimit(name, value) for name, value in sorted(ulimits.items())]


def _ulimit(name: str, value: Any) -> UlimitSpec:
    if isinstance(value, dict):
        soft: Any = value.get("soft", value.get("hard", 0))
        return UlimitSpec(name=name, soft=int(soft), hard=int(value.get("hard") or soft))
    return UlimitSpec(name=name, soft=int(value), hard=int(value))


def device_request(device: Json, capability: str = "") -> Json:
    """A reservation of devices as the engine takes it."""
    capabilities = [*(device.get("capabilities") or ())]
    if capability and capability not in capabilities:
        capabilities.append(capability)
    return {
        "Driver": device.get("driver") or "",
        "Count": int(device.get("count") or 0),
        "DeviceIDs": device.get("device_ids"),
        "Capabilities": [capabilities],
        "Options": device.get("options"),
    }


def _deploy(deploy: Json, host: HostConfig) -> None:
    """Limits of ``deploy`` go before those of the service itself."""
    resources = deploy.get("resources") or {}
    limits = resources.get("limits") or {}
    reservations = resources.get("reservations") or {}
    if limits.get("memory"):
        host.memory = int(limits["memory"])
    if limits.get("cpus"):
        host.nano_cpus = int(float(limits["cpus"]) * 1e9)
    if limits.get("pids"):
        host.pids_limit = int(limits["pids"])
    if reservations.get("memory"):
        host.memory_reservation = int(reservations["memory"])
    devices = [device_request(d) for d in reservations.get("devices") or ()]
    if devices:
        host.device_requests = [*(host.device_requests or ()), *devices]


def _security(config: Json, host: HostConfig) -> None:
    given = [entry for entry in config.get("security_opt") or () if entry != _SYSTEM_PATHS]
    if given:
        host.security_opt = given
    if _SYSTEM_PATHS in (config.get("security_opt") or ()):
        host.masked_paths = []
        host.readonly_paths = []


_CONDITIONS = {"none": "no", "any": "always"}


def restart_policy(service: Service) -> RestartPolicy | None:
    """``restart``, or what ``deploy.restart_policy`` says instead."""
    policy = (service.config.get("deploy") or {}).get("restart_policy")
    if policy:
        condition = policy.get("condition") or "any"
        return RestartPolicy(
            name=_CONDITIONS.get(condition, condition),
            maximum_retry_count=int(policy.get("max_attempts") or 0),
        )
    text = service.config.get("restart") or ""
    if not text:
        return None
    name, _, attempts = text.partition(":")
    return RestartPolicy(
        name=_CONDITIONS.get(name, name),
        maximum_retry_count=int(attempts) if attempts.isdigit() else 0,
    )


def port_bindings(ports: list[Json]) -> dict[str, list[PortBinding] | None]:
    """Published ports; one without ``published`` gets any free port."""
    made: dict[str, list[PortBinding] | None] = {}
    for port in ports:
        key = f"{port['target']}/{port.get('protocol', 'tcp')}"
        binding = PortBinding(
            host_ip=port.get("host_ip") or "", host_port=str(port.get("published") or "")
        )
        made[key] = [*(made.get(key) or ()), binding]
    return made
