"""What may stand where in a Compose file (compose-spec of 2026), as data.

A ``Rule`` says which kinds of value a place takes; ``a | b`` takes either. Keys
that begin with ``x-`` are free wherever a mapping has named keys. That a key is
required is checked after merging (``REQUIRED``), as another file may give it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec


class Rule(msgspec.Struct, frozen=True):
    """scalars: of string, number, integer, boolean, null. names: pattern of free keys."""

    scalars: frozenset[str] = frozenset()
    items: Rule | None = None
    unique: bool = False
    fields: dict[str, Rule] | None = None
    other: Rule | None = None
    names: str = ""
    extensions: bool = True
    enum: tuple[str, ...] = ()
    pattern: str = ""
    low: int | None = None
    high: int | None = None

    def __or__(self, more: Rule) -> Rule:
        mine = {f: getattr(self, f) for f in self.__struct_fields__}
        for field in self.__struct_fields__:
            value = getattr(more, field)
            if field == "scalars":
                mine[field] = mine[field] | value
            elif value != _DEFAULTS[field]:
                mine[field] = value
        return Rule(**mine)


_DEFAULTS: dict[str, Any] = {f: getattr(Rule(), f) for f in Rule.__struct_fields__}


def _scalar(*kinds: str, **more: Any) -> Rule:
    return Rule(frozenset(kinds), **more)


def _list(items: Rule, unique: bool = False) -> Rule:
    return Rule(items=items, unique=unique)


def _keys(fields: dict[str, Rule], extensions: bool = True) -> Rule:
    return Rule(fields=fields, extensions=extensions)


def _map(other: Rule, names: str = "") -> Rule:
    return Rule(fields={}, other=other, names=names, extensions=False)


def _each(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


NAME = r"[a-zA-Z0-9._-]+"
STR = _scalar("string")
NULL = _scalar("null")
INT = _scalar("integer", "string")
NUM = _scalar("number", "string")
BOOL = _scalar("boolean", "string")
REAL_BOOL = _scalar("boolean")
STRINGS = _list(STR, unique=True)
PLAIN_STRINGS = _list(STR)
STR_OR_LIST = STR | STRINGS
# where an entry's name counts once, the last one of it holds, as in Compose: no unique list
MAP_OR_LIST = _map(_scalar("string", "number", "boolean", "null")) | PLAIN_STRINGS
OPTIONS = _map(_scalar("string", "number"))
COMMAND = NULL | STR | PLAIN_STRINGS
HOSTS = _map(STR | PLAIN_STRINGS) | STRINGS
FILES = _list(
    STR | _keys({**_each(STR, "source target uid gid"), "mode": _scalar("number", "string")})
)
ULIMITS = _map(INT | _keys({"hard": INT, "soft": INT}), r"[a-z]+")
HOOK = _keys(
    {
        **_each(STR, "user working_dir"),
        "command": COMMAND,
        "privileged": BOOL,
        "environment": MAP_OR_LIST,
    }
)
INIT_HOOK = HOOK | _keys({**(HOOK.fields or {}), "image": STR, "per_replica": BOOL})
DEVICE_REQUEST = _keys(
    {
        **_each(STRINGS, "capabilities device_ids"),
        "count": _scalar("string", "integer"),
        "driver": STR,
        "options": MAP_OR_LIST,
    }
)
BUILD = STR | _keys(
    {
        **_each(STR, "context dockerfile dockerfile_inline network target isolation"),
        **_each(PLAIN_STRINGS, "entitlements cache_from cache_to tags platforms"),
        **_each(MAP_OR_LIST, "args ssh labels additional_contexts"),
        **_each(BOOL, "no_cache provenance sbom pull privileged"),
        "no_cache_filter": STR_OR_LIST,
        "shm_size": INT,
        "extra_hosts": HOSTS,
        "secrets": FILES,
        "ulimits": ULIMITS,
    }
)
_LIMITS = _list(_keys({"path": STR, "rate": INT}, extensions=False))
_WEIGHT = _keys({"path": STR, "weight": INT}, extensions=False)
BLKIO = _keys(
    {
        **_each(_LIMITS, "device_read_bps device_read_iops device_write_bps device_write_iops"),
        "weight": INT,
        "weight_device": _list(_WEIGHT),
    },
    extensions=False,
)
DEPENDS_ON = STRINGS | _map(
    _keys(
        {
            "restart": BOOL,
            "required": REAL_BOOL,
            "condition": _scalar(
                "string",
                enum=("service_started", "service_healthy", "service_completed_successfully"),
            ),
        }
    ),
    NAME,
)
_UPDATE = _keys(
    {
        **_each(STR, "delay failure_action monitor"),
        "parallelism": INT,
        "max_failure_ratio": NUM,
        "order": _scalar("string", enum=("start-first", "stop-first")),
    }
)
_GENERIC = _list(_keys({"discrete_resource_spec": _keys({"kind": STR, "value": NUM})}))
DEPLOY = NULL | _keys(
    {
        "mode": STR,
        "endpoint_mode": STR,
        "replicas": INT,
        "labels": MAP_OR_LIST,
        "rollback_config": _UPDATE,
        "update_config": _UPDATE,
        "resources": _keys(
            {
                "limits": _keys({"cpus": NUM, "memory": STR, "pids": INT}),
                "reservations": _keys(
                    {
                        "cpus": NUM,
                        "memory": STR,
                        "generic_resources": _GENERIC,
                        "devices": _list(DEVICE_REQUEST),
                    }
                ),
            }
        ),
        "restart_policy": _keys({**_each(STR, "condition delay window"), "max_attempts": INT}),
        "placement": _keys(
            {
                "constraints": PLAIN_STRINGS,
                "preferences": _list(_keys({"spread": STR})),
                "max_replicas_per_node": INT,
            }
        ),
    }
)
DEVELOP = NULL | _keys(
    {
        "watch": _list(
            _keys(
                {
                    **_each(STR_OR_LIST, "ignore include"),
                    **_each(STR, "path target"),
                    "action": _scalar(
                        "string",
                        enum=("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
                    ),
                    "exec": HOOK,
                    "initial_sync": REAL_BOOL,
                }
            )
        )
    }
)
HEALTHCHECK = _keys(
    {
        **_each(STR, "interval timeout start_period start_interval"),
        "disable": BOOL,
        "retries": NUM,
        "test": STR | PLAIN_STRINGS,
    }
)
_NETWORK_USE = NULL | _keys(
    {
        **_each(PLAIN_STRINGS, "aliases link_local_ips"),
        **_each(STR, "interface_name ipv4_address ipv6_address mac_address"),
        "driver_opts": OPTIONS,
        **_each(_scalar("number"), "priority gw_priority"),
    }
)
_MODEL_USE = NULL | _keys(_each(STR, "endpoint_var model_var"))
PORTS = _list(
    _scalar("number", "string")
    | _keys(
        {**_each(STR, "name mode host_ip protocol app_protocol"), **_each(INT, "target published")}
    )
)
VOLUMES = _list(
    STR
    | _keys(
        {
            "type": _scalar(
                "string", enum=("bind", "volume", "tmpfs", "cluster", "npipe", "image")
            ),
            **_each(STR, "source target consistency"),
            "read_only": BOOL,
            "bind": _keys(
                {
                    "propagation": STR,
                    "create_host_path": BOOL,
                    "recursive": _scalar(
                        "string", enum=("enabled", "disabled", "writable", "readonly")
                    ),
                    "selinux": _scalar("string", enum=("z", "Z")),
                }
            ),
            "volume": _keys({"labels": MAP_OR_LIST, "nocopy": BOOL, "subpath": STR}),
            "tmpfs": _keys(
                {"size": _scalar("integer", "string", low=0), "mode": _scalar("number", "string")}
            ),
            "image": _keys({"subpath": STR}),
        }
    )
)
_OPTION = _scalar("string", "number", "boolean")
SERVICE = _keys(
    {
        **_each(
            STR,
            "cgroup_parent cpuset domainname hostname image ipc isolation"
            " mac_address network_mode platform pull_refresh_after restart runtime"
            " stop_grace_period stop_signal user uts userns_mode working_dir",
        ),
        **_each(
            NUM,
            "cpu_shares cpu_quota cpu_period cpu_rt_period cpu_rt_runtime cpus mem_limit"
            " memswap_limit pids_limit shm_size",
        ),
        **_each(INT, "mem_reservation mem_swappiness scale"),
        **_each(BOOL, "attach init oom_kill_disable privileged read_only stdin_open tty"),
        **_each(STRINGS, "device_cgroup_rules external_links security_opt volumes_from"),
        **_each(PLAIN_STRINGS, "cap_add cap_drop dns_opt links profiles"),
        **_each(STR | PLAIN_STRINGS, "dns dns_search tmpfs"),
        **_each(MAP_OR_LIST, "annotations environment labels sysctls"),
        **_each(COMMAND, "command entrypoint"),
        **_each(FILES, "configs secrets"),
        "expose": _list(_scalar("string", "number")),
        "group_add": _list(_scalar("string", "number"), unique=True),
        **_each(_list(HOOK), "post_start pre_stop"),
        "pre_start": _list(INIT_HOOK),
        "blkio_config": BLKIO,
        "build": BUILD,
        "cgroup": _scalar("string", enum=("host", "private")),
        "container_name": _scalar("string", pattern=r".*[a-zA-Z0-9][a-zA-Z0-9_.-]+.*"),
        "cpu_count": _scalar("string", "integer", low=0),
        "cpu_percent": _scalar("string", "integer", "number", low=0, high=100),
        "credential_spec": _keys(_each(STR, "config file registry")),
        "depends_on": DEPENDS_ON,
        "deploy": DEPLOY,
        "develop": DEVELOP,
        "devices": _list(STR | _keys(_each(STR, "source target permissions"))),
        "env_file": STR
        | _list(STR | _keys({"path": STR, "format": STR, "required": BOOL}, extensions=False)),
        "label_file": STR | PLAIN_STRINGS,
        "extends": STR | _keys({"service": STR, "file": STR}, extensions=False),
        "extra_hosts": HOSTS,
        "gpus": _scalar("string", enum=("all",)) | _list(DEVICE_REQUEST),
        "healthcheck": HEALTHCHECK,
        "logging": _keys({"driver": STR, "options": _map(_scalar("string", "number", "null"))}),
        "models": STRINGS | _map(_MODEL_USE, NAME),
        "networks": STRINGS | _map(_NETWORK_USE, NAME),
        "oom_score_adj": _scalar("string", "integer", low=-1000, high=1000),
        "pid": _scalar("string", "null"),
        "ports": PORTS,
        "provider": _keys({"type": STR, "options": _map(_OPTION | _list(_OPTION))}),
        "pull_policy": _scalar(
            "string",
            pattern="always|never|build|if_not_present|missing|refresh|daily|weekly"
            "|every_([0-9]+[wdhms])+",
        ),
        "storage_opt": _map(_scalar("string", "number", "boolean", "null")),
        "ulimits": ULIMITS,
        "use_api_socket": REAL_BOOL,
        "volumes": VOLUMES,
    }
)
_EXTERNAL = BOOL | _keys({"name": STR})
_RESOURCE = {"name": STR, "external": _EXTERNAL, "labels": MAP_OR_LIST}
NETWORK = NULL | _keys(
    {
        **_RESOURCE,
        "driver": STR,
        "driver_opts": OPTIONS,
        "ipam": _keys(
            {
                "driver": STR,
                "config": _list(
                    _keys({**_each(STR, "subnet ip_range gateway"), "aux_addresses": _map(STR)})
                ),
                "options": _map(STR),
            }
        ),
        **_each(BOOL, "internal enable_ipv4 enable_ipv6 attachable"),
    }
)
VOLUME = NULL | _keys({**_RESOURCE, "driver": STR, "driver_opts": OPTIONS})
_FILE = {**_RESOURCE, **_each(STR, "environment file template_driver")}
SECRET = _keys({**_FILE, "driver": STR, "driver_opts": OPTIONS})
CONFIG = _keys({**_FILE, "content": STR})
MODEL = _keys(
    {"name": STR, "model": STR, "context_size": _scalar("integer"), "runtime_flags": PLAIN_STRINGS}
)
INCLUDE = STR | _keys(
    {"path": STR_OR_LIST, "env_file": STR_OR_LIST, "project_directory": STR}, extensions=False
)
COMPOSE = _keys(
    {
        "version": _scalar("string", "number"),
        "name": STR,
        "include": _list(INCLUDE),
        "services": _map(SERVICE, NAME),
        "models": _map(MODEL, NAME),
        "networks": _map(NETWORK, NAME),
        "volumes": _map(VOLUME, NAME),
        "secrets": _map(SECRET, NAME),
        "configs": _map(CONFIG, NAME),
    }
)
BASE = _keys({"services": _map(SERVICE | NULL)})
"""What is looked at of a file that a service extends from."""

REQUIRED = {
    "services.*.depends_on.*": ("condition",),
    "services.*.devices.*": ("source",),
    "services.*.volumes.*": ("type", "target"),
    "services.*.env_file.*": ("path",),
    "services.*.provider": ("type",),
    "services.*.post_start.*": ("command",),
    "services.*.pre_stop.*": ("command",),
    "services.*.develop.watch.*": ("path", "action"),
    "services.*.develop.watch.*.exec": ("command",),
    "services.*.deploy.resources.reservations.devices.*": ("capabilities",),
    "services.*.ports.*": ("target",),
    "models.*": ("model",),
}
"""Keys that must be there once everything is merged."""

NEEDED = {
    **REQUIRED,
    "services.*.volumes.*": ("type", "target", "source"),
    "services.*.develop.watch.*": ("path", "action", "target"),
    **dict.fromkeys(
        ("services.*.secrets.*", "services.*.configs.*", "services.*.build.secrets.*"),
        ("source",),
    ),
}
"""Keys without which an entry says nothing, and those whose absence is told of in some cases."""

PATTERNS: dict[str, re.Pattern[str]] = {}


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern, compiled once."""
    found = PATTERNS.get(pattern)
    if found is None:
        found = PATTERNS[pattern] = re.compile(pattern)
    return found
