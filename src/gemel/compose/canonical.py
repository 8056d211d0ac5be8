"""Short forms become long ones, texts become numbers: one shape for every attribute.

A table keyed by path; every function gets the value as written and gives the
canonical one, or raises ValueError with words for the person.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemel.compose import units
from gemel.compose.broken import Scope
from gemel.compose.problems import Path
from gemel.compose.raw import is_open
from gemel.compose.tables import Rewriter, Table, rewrite
from gemel.compose.units import text_of

Json = dict[str, Any]


class Several(ValueError):
    """Some entries of a value are wrong. found: keys and words; rest: the others, converted."""

    def __init__(self, found: list[tuple[str | int, str]], rest: Any) -> None:
        super().__init__(*(words for _, words in found))
        self.found = found
        self.rest = rest


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _repeated(value: Any) -> Any:
    """Options of a provider, each of which may be given several times."""
    if not isinstance(value, dict):
        return value
    return {
        k: [text_of(e) for e in v] if isinstance(v, list) else [text_of(v)]
        for k, v in value.items()
    }


def _addresses(value: Any) -> Any:
    return [v for v in _listed(value) or () if v]


def _texts(value: Any) -> Any:
    return [text_of(v) for v in value] if isinstance(value, list) else value


def _pairs(missing: Any) -> Callable[[Any], Any]:
    """A list of KEY=VALUE or a mapping → a mapping of texts; ``missing`` for no value."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: missing if v is None else text_of(v) for k, v in value.items()}
        if not isinstance(value, list):
            return value
        made: dict[str, Any] = {}
        for item in value:
            key, equals, text = str(item).partition("=")
            made[key] = text if equals else missing
        return made

    return convert


def _environment(value: Any) -> Any:
    made = _pairs(None)(value)
    for key in made if isinstance(made, dict) else ():
        if key != key.rstrip():
            raise ValueError(f'the variable "{key}" ends with a blank')
    return made


def _entries(wrong: Callable[[str], str], convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``convert`` of a list's right entries; ``wrong`` says what is wrong with one."""

    def checked(value: Any) -> Any:
        if not isinstance(value, list):
            return convert(value)
        told = [wrong(str(item)) for item in value]
        rest = convert([item for item, words in zip(value, told, strict=True) if not words])
        found: list[tuple[str | int, str]] = [(n, words) for n, words in enumerate(told) if words]
        if found:
            raise Several(found, rest)
        return rest

    return checked


def _wrong_context(item: str) -> str:
    return "" if "=" in item else f'"{item}" must be name=context'


def _wrong_host(item: str) -> str:
    host, _, address = item.partition("=" if "=" in item else ":")
    if not address and not item.endswith(("=", ":")):
        return f'"{item}": the address is missing (host=address)'
    return "" if host and ":" not in host else f'"{host}" is not the name of a host'


def _wrong_key(item: str) -> str:
    return "" if "=" in item or item == "default" else f'"{item}" must be "default" or id=path'


def _hosts(value: Any) -> Any:
    """extra_hosts → a sorted list of ``host=address``."""
    pairs: list[tuple[str, str]] = []
    if isinstance(value, dict):
        for host, addresses in value.items():
            for address in addresses if isinstance(addresses, list) else [addresses]:
                pairs.append((host, text_of(address)))
    elif isinstance(value, list):
        for item in value:
            text = str(item)
            mark = "=" if "=" in text else ":"
            host, _, rest = text.partition(mark)
            pairs += [(host, address) for address in rest.split(",")]
    for host, _ in pairs:
        if not host or ":" in host or "=" in host:
            raise ValueError(f'"{host}" is not the name of a host')
    made = [f"{h}={a[1:-1] if a.startswith('[') and a.endswith(']') else a}" for h, a in pairs]
    return sorted(dict.fromkeys(made))


def _command(value: Any) -> Any:
    return units.command(value) if isinstance(value, str) else value


def _test(value: Any) -> Any:
    return ["CMD-SHELL", value] if isinstance(value, str) else value


def _depends_on(value: Any) -> Any:
    if isinstance(value, list):
        return {str(k): {"condition": "service_started", "required": True} for k in value}
    return value


def _as_keys(value: Any) -> Any:
    return {str(key): None for key in value} if isinstance(value, list) else value


def _env_file(value: Any) -> Any:
    made: list[Any] = []
    for item in _listed(value) or []:
        if isinstance(item, dict):
            made.append({**item, "required": item.get("required", True)})
        else:
            made.append({"path": str(item), "required": True})
    return made


def _build(value: Any) -> Any:
    return {"context": value} if isinstance(value, str) else value


def _file_use(value: Any) -> Any:
    if isinstance(value, str):
        return {"source": value}
    if isinstance(value, dict) and isinstance(value.get("mode"), (str, int, float)):
        mode = value["mode"]
        number = int(mode, 8) if isinstance(mode, str) else int(mode)
        return {**value, "mode": f"0{number:o}"}
    return value


def _ports(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    made: list[Any] = []
    found: list[tuple[str | int, str]] = []
    for index, item in enumerate(value):
        try:
            if isinstance(item, dict):
                made.append(_port(item))
            elif isinstance(item, str) and is_open(item):
                made.append(item)
            else:
                made += units.ports(text_of(item))
        except ValueError as error:
            found.append((index, str(error)))
    if found:
        raise Several(found, made)
    return made


def _port(item: Json) -> Json:
    made = dict(item)
    if "published" in made:
        made["published"] = text_of(made["published"])
    target = made.get("target")
    if isinstance(target, str) and target.isdigit():
        made["target"] = int(target)
    host_ip = made.get("host_ip")
    if host_ip and not is_open(host_ip):
        units.address(host_ip)
    return made


def _volume(value: Any) -> Any:
    if isinstance(value, str):
        return value if is_open(value) else units.volume(value)
    if isinstance(value, dict) and isinstance(value.get("target"), str) and value["target"]:
        return {**value, "target": units.clean(value["target"])}
    return value


def _device(value: Any) -> Any:
    if not isinstance(value, str) or is_open(value):
        return value
    parts = value.split(":")
    if len(parts) > 3:
        raise ValueError(f'"{value}" has too many colons (source:target:permissions)')
    source = parts[0]
    target = parts[1] if len(parts) > 1 and parts[1] else source
    return {
        "source": source,
        "target": target,
        "permissions": parts[2] if len(parts) == 3 else "rwm",
    }


def _gpus(value: Any) -> Any:
    return [{"count": -1}] if isinstance(value, str) else value


def _count(value: Any) -> Any:
    if isinstance(value, str):
        if value.lower() == "all":
            return -1
        try:
            return int(value)
        except ValueError:
            raise ValueError(f'"{value}" must be "all" or a number') from None
    return value


def _size(value: Any) -> Any:
    if value is None or (isinstance(value, str) and is_open(value)):
        return value
    return str(units.size(value))


def _duration(value: Any) -> Any:
    if not isinstance(value, str) or is_open(value):
        return value
    return units.go_duration(units.duration(value))


def _number(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, str) and not is_open(value):
            try:
                return kind(value)
            except ValueError:
                raise ValueError(f'"{value}" is not a number') from None
        if kind is int and isinstance(value, float):
            return int(value)
        return value

    return convert


def _external(value: Any) -> Any:
    """``external: {name: x}`` is an old way to write ``external: true`` and ``name: x``."""
    if not isinstance(value, dict) or not isinstance(value.get("external"), dict):
        return value
    name = value["external"].get("name")
    if name is not None and value.get("name", name) != name:
        raise ValueError("name and external.name differ: give only name")
    made = {**value, "external": True}
    if name is not None:
        made["name"] = name
    return made


def _network_use(value: Any) -> Any:
    """priorities are whole numbers."""
    if not isinstance(value, dict):
        return value
    return {
        k: int(v) if k.endswith("priority") and isinstance(v, float) else v
        for k, v in value.items()
    }


_SERVICE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("labels", "annotations", "sysctls", "build.labels"), _pairs("")),
    **dict.fromkeys(("deploy.labels", "volumes.*.volume.labels"), _pairs("")),
    **dict.fromkeys(("logging.options", "networks.*.driver_opts"), _pairs("")),
    **dict.fromkeys(("deploy.resources.reservations.devices.*.options",), _pairs("")),
    "environment": _environment,
    **{f"{hook}.*.environment": _environment for hook in ("pre_start", "post_start", "pre_stop")},
    "build.args": _pairs(None),
    "build.additional_contexts": _entries(_wrong_context, _pairs("")),
    "build.ssh": _entries(_wrong_key, _pairs(None)),
    **dict.fromkeys(("extra_hosts", "build.extra_hosts"), _entries(_wrong_host, _hosts)),
    **dict.fromkeys(("command", "entrypoint"), _command),
    **{f"{hook}.*.command": _command for hook in ("pre_start", "post_start", "pre_stop")},
    "develop.watch.*.exec.command": _command,
    "develop.watch.*.exec.environment": _environment,
    **dict.fromkeys(
        [
            "dns_search",
            "tmpfs",
            "label_file",
            "build.no_cache_filter",
            "develop.watch.*.ignore",
            "develop.watch.*.include",
        ],
        _listed,
    ),
    **dict.fromkeys(("expose", "group_add"), _texts),
    "dns": _addresses,
    "provider.options": _repeated,
    "healthcheck.test": _test,
    "depends_on": _depends_on,
    **dict.fromkeys(("networks", "models"), _as_keys),
    "networks.*": _network_use,
    "env_file": _env_file,
    "build": _build,
    **dict.fromkeys(("build.provenance", "build.sbom"), text_of),
    **dict.fromkeys(("secrets.*", "configs.*", "build.secrets.*"), _file_use),
    "ports": _ports,
    "volumes.*": _volume,
    "devices.*": _device,
    "gpus": _gpus,
    **dict.fromkeys(("gpus.*.count", "deploy.resources.reservations.devices.*.count"), _count),
    **dict.fromkeys(
        [
            "mem_limit",
            "mem_reservation",
            "memswap_limit",
            "mem_swappiness",
            "shm_size",
            "build.shm_size",
            "volumes.*.tmpfs.size",
            "deploy.resources.limits.memory",
            "deploy.resources.reservations.memory",
            "blkio_config.device_read_bps.*.rate",
            "blkio_config.device_read_iops.*.rate",
            "blkio_config.device_write_bps.*.rate",
            "blkio_config.device_write_iops.*.rate",
        ],
        _size,
    ),
    **dict.fromkeys(
        [
            "stop_grace_period",
            "healthcheck.interval",
            "healthcheck.timeout",
            "healthcheck.start_period",
            "healthcheck.start_interval",
            "deploy.update_config.delay",
            "deploy.update_config.monitor",
            "deploy.rollback_config.delay",
            "deploy.rollback_config.monitor",
            "deploy.restart_policy.delay",
            "deploy.restart_policy.window",
        ],
        _duration,
    ),
    **dict.fromkeys(
        [
            "deploy.resources.limits.pids",
            "healthcheck.retries",
            "blkio_config.weight",
            "blkio_config.weight_device.*.weight",
            "cpu_shares",
            "cpu_quota",
            "cpu_period",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "pids_limit",
            "scale",
            "deploy.replicas",
        ],
        _number(int),
    ),
    **dict.fromkeys(
        ["cpus", "deploy.resources.limits.cpus", "deploy.resources.reservations.cpus"],
        _number(float),
    ),
}
_TOP: dict[str, Callable[[Any], Any]] = {
    **{f"{kind}.*": _external for kind in ("networks", "volumes", "secrets", "configs")},
    **{f"{kind}.*.labels": _pairs("") for kind in ("networks", "volumes", "secrets", "configs")},
    **{f"{kind}.*.driver_opts": _pairs("") for kind in ("networks", "volumes", "secrets")},
    "networks.*.ipam.config.*.aux_addresses": _pairs(""),
    "include": lambda v: [{"path": e} if isinstance(e, str) else e for e in v or []],
}


def canonical(value: Any, scope: Scope) -> Any:
    """``value`` in canonical form. What cannot be understood is told and left as it is."""

    def guarded(convert: Callable[[Any], Any]) -> Rewriter:
        def run(item: Any, path: Path) -> Any:
            try:
                return convert(item)
            except Several as error:
                for key, words in error.found:
                    scope.tell_gone((*path, key), words)
                return error.rest
            except (ValueError, OverflowError) as error:
                scope.tell(path, str(error))
                return item

        return run

    table = Table({key: guarded(c) for key, c in _ALL.items()})
    return rewrite(value, table)


_ALL = {f"services.*.{key}": convert for key, convert in _SERVICE.items()} | _TOP
