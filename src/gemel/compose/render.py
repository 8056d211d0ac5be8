"""A project as ``config`` prints it: Compose's canonical form, as YAML or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gemel.compose import yamlwrite
from gemel.compose.project import Project, Service
from gemel.compose.tables import Table, words

Json = dict[str, Any]

_SERVICE_ORDER = words(
    "profiles annotations attach build develop blkio_config cap_add cap_drop "
    "cgroup_parent cgroup cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period "
    "cpu_rt_runtime cpus cpuset cpu_shares command configs container_name "
    "credential_spec depends_on deploy device_cgroup_rules devices dns dns_opt "
    "dns_search domainname entrypoint provider environment env_file expose extends "
    "external_links extra_hosts group_add gpus hostname healthcheck image init ipc "
    "isolation labels label_file links logging mem_limit mem_reservation "
    "memswap_limit mem_swappiness mac_address models network_mode networks "
    "oom_kill_disable oom_score_adj pid pids_limit platform ports privileged "
    "pull_policy read_only restart runtime scale secrets security_opt shm_size "
    "stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits "
    "use_api_socket user userns_mode uts volumes volumes_from working_dir pre_start "
    "post_start pre_stop"
)
_ORDERS: dict[str, Sequence[str]] = {
    "services.*": _SERVICE_ORDER,
    "services.*.build": words(
        "context dockerfile dockerfile_inline entitlements args provenance sbom ssh "
        "labels cache_from cache_to no_cache no_cache_filter additional_contexts pull "
        "extra_hosts isolation network target secrets shm_size tags ulimits platforms "
        "privileged"
    ),
    "services.*.deploy": words(
        "mode replicas labels update_config rollback_config resources restart_policy "
        "placement endpoint_mode"
    ),
    "services.*.healthcheck": words(
        "test timeout interval retries start_period start_interval disable"
    ),
    "services.*.ports.*": words("name mode host_ip target published protocol app_protocol"),
    "services.*.volumes.*": words(
        "type source target read_only consistency bind volume tmpfs image"
    ),
    "services.*.volumes.*.bind": words("selinux propagation create_host_path recursive"),
    "services.*.devices.*": words("source target permissions"),
    "services.*.ulimits.*": words("soft hard"),
    "services.*.build.ulimits.*": words("soft hard"),
    "services.*.env_file.*": words("path required format"),
    "services.*.post_start.*": words("command image user privileged working_dir environment"),
    "services.*.pre_stop.*": words("command image user privileged working_dir environment"),
    "services.*.pre_start.*": words("command image user privileged working_dir environment"),
    "services.*.deploy.update_config": words(
        "parallelism delay failure_action monitor max_failure_ratio order"
    ),
    "services.*.deploy.rollback_config": words(
        "parallelism delay failure_action monitor max_failure_ratio order"
    ),
    "services.*.deploy.resources": words("limits reservations"),
    "services.*.deploy.resources.limits": words("cpus memory pids"),
    "services.*.deploy.resources.reservations": words("cpus memory pids devices generic_resources"),
    "services.*.deploy.restart_policy": words("condition delay max_attempts window"),
    "services.*.deploy.placement": words("constraints preferences max_replicas_per_node"),
    "services.*.networks.*": words(
        "aliases driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips"
        " mac_address priority"
    ),
    "networks.*.ipam": words("driver config options"),
    "services.*.volumes.*.volume": words("labels nocopy subpath"),
    "services.*.volumes.*.tmpfs": words("size mode"),
    "services.*.blkio_config": words(
        "weight weight_device device_read_bps device_read_iops device_write_bps device_write_iops"
    ),
    "services.*.provider": words("type options"),
    "services.*.gpus.*": words("capabilities driver count device_ids options"),
    "services.*.deploy.resources.reservations.devices.*": words(
        "capabilities driver count device_ids options"
    ),
    "services.*.depends_on.*": words("condition restart required"),
    "services.*.configs.*": words("source target uid gid mode"),
    "services.*.secrets.*": words("source target uid gid mode"),
    "services.*.develop.watch.*": words("path action target exec include ignore initial_sync"),
    "networks.*": words(
        "name driver driver_opts ipam external internal attachable labels enable_ipv4 enable_ipv6"
    ),
    "networks.*.ipam.config.*": words("subnet gateway ip_range aux_addresses"),
    "volumes.*": words("name driver driver_opts external labels"),
    "configs.*": words("name file environment content external labels template_driver"),
    "secrets.*": words("name file environment external labels driver driver_opts"),
}
_KEEP = "keep"
"""Values that say something though they are empty."""
_FREE = "free"
"""Mappings whose keys and values are the person's: all are kept."""
_RULES: dict[str, str] = {
    **{
        f"services.*.{key}": _FREE
        for key in words(
            "annotations build.additional_contexts build.args build.labels build.ulimits "
            "deploy.labels environment labels logging.options networks storage_opt sysctls "
            "ulimits models build.ssh extra_hosts volumes.*.volume.labels "
            "networks.*.driver_opts depends_on provider.options"
        )
    },
    **{
        f"services.*.{key}": _KEEP
        for key in words(
            "attach init scale deploy deploy.replicas healthcheck logging entrypoint command "
            "blkio_config healthcheck.retries deploy.update_config deploy.rollback_config "
            "deploy.update_config.parallelism deploy.rollback_config.parallelism "
            "deploy.resources.limits deploy.resources.reservations deploy.restart_policy "
            "deploy.restart_policy.max_attempts volumes.*.bind volumes.*.volume "
            "volumes.*.tmpfs volumes.*.image depends_on.*.required develop build provider "
            "volumes.*.bind.create_host_path post_start.*.command pre_stop.*.command "
            "pre_start.*.command networks.* networks.*.driver_opts env_file.*.required"
        )
    },
    **{f"{kind}.*": _KEEP for kind in ("networks", "volumes", "configs", "secrets", "models")},
    **{f"{kind}.*.labels": _FREE for kind in ("networks", "volumes", "configs", "secrets")},
    **{f"{kind}.*.driver_opts": _FREE for kind in ("networks", "volumes", "secrets")},
    "networks.*.enable_ipv4": _KEEP,
    "networks.*.enable_ipv6": _KEEP,
    "networks.*.ipam.options": _FREE,
    "networks.*.ipam.config.*.aux_addresses": _FREE,
}
_RULE = Table(_RULES)
_ORDER = Table(_ORDERS)


def canonical(
    project: Project,
    services: Sequence[str] = (),
    *,
    as_json: bool = False,
    escape: bool = True,
    unused: bool = False,
) -> Json:
    """The project as plain values, in Compose's order of keys.

    services: only these and what they depend on. Resources that no service uses
    are left out, as in Compose, unless ``unused``. escape: a ``$`` is written ``$$``, so
    that what is printed can be loaded again.
    """
    names = project.with_dependencies(services) if services else list(project.services)
    chosen = {n: project.service(n) for n in sorted(names, key=yamlwrite.natural)}
    made: Json = {"name": project.name}
    made["services"] = {n: _service(s, as_json) for n, s in chosen.items()}
    for service in made["services"].values():
        service.pop("label_file", None)  # its labels are in ``labels``
    for kind in ("networks", "volumes", "secrets", "configs", "models"):
        kept = getattr(project, kind) if unused else _used(project, kind, list(chosen.values()))
        if kept:
            made[kind] = {k: _resource(kind, v, as_json) for k, v in kept.items()}
    made.update(_in_order(project.extensions))
    return _escaped(made) if escape else made


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


def _used(project: Project, kind: str, services: list[Service]) -> dict[str, Json]:
    every: dict[str, Json] = getattr(project, kind)
    used: set[str] = set()
    for service in services:
        config = service.config
        if kind == "volumes":
            used |= {v.get("source", "") for v in service.volumes if isinstance(v, dict)}
        elif kind in ("networks", "models"):
            used |= set(config.get(kind) or {})
        else:
            uses = [*(config.get(kind) or ())]
            uses += (config.get("build") or {}).get(kind) or ()
            used |= {use.get("source", "") for use in uses}
    return {key: every[key] for key in _sorted(every, None) if key in used}


def _service(service: Service, as_json: bool) -> Json:
    config = service.config
    ssh = (config.get("build") or {}).get("ssh")
    if isinstance(ssh, dict):
        listed = [k if v is None else f"{k}={v}" for k, v in ssh.items()]
        config = {**config, "build": {**config["build"], "ssh": listed}}
    made: Json = _pruned(config, ("services", service.name), as_json)
    if as_json:
        _json_quirks(made)
    return made


def service_json(service: Service) -> Json:
    """A service as Compose's JSON has it, in the order of its fields."""
    made = _service(service, as_json=True)
    for volume in made.get("volumes") or ():
        if (volume.get("bind") or {}).get("create_host_path") is False:
            del volume["bind"]["create_host_path"]
    return made


def resource_json(kind: str, config: Json) -> Json:
    """A network or volume as Compose's JSON has it, in the order of its fields."""
    made = _resource(kind, config, as_json=True)
    return {key: made[key] for key in _sorted(made, _ORDERS[f"{kind}.*"])}


def _json_quirks(service: Json) -> None:
    """What only Compose's JSON has: nulls for commands that are not given, empty structs."""
    service.setdefault("command", None)
    service.setdefault("entrypoint", None)
    deploy = service.get("deploy")
    if isinstance(deploy, dict):
        deploy.setdefault("resources", {})
        deploy.setdefault("placement", {})
        service["deploy"] = {k: deploy[k] for k in _sorted(deploy, _ORDERS["services.*.deploy"])}
    watch = (service.get("develop") or {}).get("watch") or []
    for index, rule in enumerate(watch):
        rule.setdefault("exec", {}).setdefault("command", None)
        order = _ORDERS["services.*.develop.watch.*"]
        watch[index] = {k: rule[k] for k in _sorted(rule, order)}
    blkio = service.get("blkio_config") or {}
    for key, entries in blkio.items():
        if isinstance(entries, list):
            blkio[key] = [{k.capitalize(): v for k, v in e.items()} for e in entries]
    for key in _sorted(service, _SERVICE_ORDER):
        service[key] = service.pop(key)


def _resource(kind: str, config: Json, as_json: bool) -> Json:
    config = dict(config)
    if kind == "secrets" or config.get("environment"):
        config.pop("content", None)  # values of the environment are nobody's to print
    made: Json = _pruned(config, (kind, "x"), as_json)
    if as_json and kind == "networks":
        made.setdefault("ipam", {})
    return made


def _pruned(value: Any, path: tuple[str, ...], as_json: bool) -> Any:
    return _prune(value, _RULE.at(path), _ORDER.at(path), as_json)


def _prune(
    value: Any, rule: Table[str] | None, order: Table[Sequence[str]] | None, as_json: bool
) -> Any:
    """``value`` without what is empty and says nothing, its keys in order."""
    if isinstance(value, list):
        star, below = rule and rule.star, order and order.star
        return [_prune(item, star, below, as_json) for item in value]
    if not isinstance(value, dict):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    free = rule is not None and rule.entry == _FREE
    made: Json = {}
    for key in _sorted(value, order.entry if order else None):
        item, next_rule = value[key], rule and rule.below(key)
        extension = key.startswith("x-") and not free
        if extension:
            if not as_json or key == "x-gemel":
                made[key] = _in_order(item)
            continue
        kept = _prune(item, next_rule, order and order.below(key), as_json)
        known = free or (next_rule is not None and next_rule.entry == _KEEP and kept is not None)
        if known or not (_is_empty(kept) or (key in _SIZES and kept == "0")):
            made[key] = kept
    return made


def _in_order(value: Any) -> Any:
    """A free value with its keys sorted."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in _sorted(value, None)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0, [], {})


_SIZES = frozenset(
    ("mem_limit", "mem_reservation", "memswap_limit", "mem_swappiness", "shm_size", "memory")
)


def _sorted(value: Json, order: Sequence[str] | None) -> list[str]:
    if order is None:
        return sorted(value, key=yamlwrite.natural) if len(value) > 1 else list(value)
    places = {key: place for place, key in enumerate(order)}
    return sorted(value, key=lambda key: (places.get(key, len(places)), key))


def to_json(value: Any) -> str:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def to_yaml(value: Any) -> str:
    """YAML as Go's yaml.v3 writes it."""
    return yamlwrite.dump(value)


def images(project: Project, services: Sequence[str] = ()) -> list[str]:
    """The images of the services, sorted, each once."""
    names = project.with_dependencies(services) if services else list(project.services)
    return sorted({project.image_of(project.service(name)) for name in names})


def all_profiles(project: Project) -> list[str]:
    """Every profile that a service names, sorted."""
    services = [*project.services.values(), *project.disabled.values()]
    return sorted({profile for service in services for profile in service.profiles})
