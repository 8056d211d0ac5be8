"""Several files, an extended service, an included project: how one value overrides another.

Both sides are canonical, so that most attributes follow the general rule:
mappings merge key by key, lists are appended, anything else is replaced. The
tables hold what differs from it, and what makes two entries of a list the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemel.compose.problems import Path, dotted
from gemel.compose.tables import Table

Merger = Callable[[Any, Any, Path], Any]
Key = Callable[[Any], str]


class Mismatch(Exception):
    """Values of different shape. found: paths and words; merged: the rest, with the first kept."""

    def __init__(self, found: list[tuple[Path, str]], merged: Any) -> None:
        super().__init__(*(words for _, words in found))
        self.found = found
        self.merged = merged


def _replace(base: Any, over: Any, path: Path) -> Any:
    return over


def _logging(base: Any, over: Any, path: Path) -> Any:
    """Options only merge while the driver stays the same."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    mine, other = base.get("driver"), over.get("driver")
    if mine is None or other is None or mine == other:
        return _mappings(base, over, None, path)
    return over


def _either_mapping(base: Any, over: Any, path: Path) -> Any:
    """Merges if both are mappings, else replaces (``ulimits``: a number or two)."""
    if isinstance(base, dict) and isinstance(over, dict):
        return _mappings(base, over, None, path)
    return over


def _pools(base: Any, over: Any, path: Path) -> Any:
    """IPAM pools of the same subnet merge; others are appended."""
    if not isinstance(base, list) or not isinstance(over, list):
        return over
    made = [dict(pool) for pool in base if isinstance(pool, dict)]
    for pool in over:
        same = next((m for m in made if m.get("subnet") == pool.get("subnet")), None)
        if same is None:
            made.append(pool)
        else:
            same.update(pool)
    return made


_MERGERS: Table[Merger] = Table(
    {
        "services.*.command": _replace,
        "services.*.entrypoint": _replace,
        "services.*.healthcheck.test": _replace,
        "services.*.logging": _logging,
        "services.*.ulimits.*": _either_mapping,
        "services.*.build.ulimits.*": _either_mapping,
        "networks.*.ipam.config": _pools,
    }
)


def merge(base: Any, over: Any, at: Path = ()) -> Any:
    """``base`` overridden by ``over``; neither is changed. Raises Mismatch."""
    return _merge(base, over, _MERGERS.at(at), at)


def _merge(base: Any, over: Any, table: Table[Merger] | None, path: Path) -> Any:
    if table is not None and table.entry is not None:
        return table.entry(base, over, path)
    if over is None:
        return base
    if isinstance(base, dict):
        if not isinstance(over, dict):
            raise _mismatch(path, "mapping", base)
        return _mappings(base, over, table, path)
    if isinstance(base, list):
        if not isinstance(over, list):
            raise _mismatch(path, "list", base)
        return [*base, *over]
    return over


def _mismatch(path: Path, kind: str, base: Any) -> Mismatch:
    words = f"{dotted(path)} is a {kind} where it is merged into: give a {kind}"
    return Mismatch([(path, words)], base)


_NULLABLE: Table[bool] = Table(
    {"services.*.environment": True, "services.*.build.args": True, "services.*.labels": True}
)
"""Mappings in which a key without a value says something: take it from outside."""


def _mappings(
    base: dict[str, Any], over: dict[str, Any], table: Table[Merger] | None, path: Path
) -> dict[str, Any]:
    made = dict(base)
    nulls = _NULLABLE.at(path)
    found: list[tuple[Path, str]] = []
    for key, value in over.items():
        if key not in made or (value is None and nulls is not None and nulls.entry):
            made[key] = value
            continue
        try:
            made[key] = _merge(made[key], value, table and table.below(key), (*path, key))
        except Mismatch as error:
            found += error.found
            made[key] = error.merged
    if found:
        raise Mismatch(found, made)
    return made


def _name(entry: Any) -> str:
    return str(entry).partition("=")[0]


def _target(entry: Any) -> str:
    return str(entry.get("target", entry)) if isinstance(entry, dict) else str(entry)


def _path(entry: Any) -> str:
    return str(entry.get("path", entry)) if isinstance(entry, dict) else str(entry)


def _port(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    host = entry.get("host_ip", "0.0.0.0")
    protocol = entry.get("protocol", "tcp")
    return f"{host}:{entry.get('published')}:{entry.get('target')}/{protocol}"


def _mounted(folder: str) -> Key:
    def key(entry: Any) -> str:
        if not isinstance(entry, dict):
            return f"{folder}/{entry}"
        return str(entry.get("target") or f"{folder}/{entry.get('source')}")

    return key


_SAME: Table[Key] = Table(
    {
        **{
            f"services.*.{key}": _name
            for key in [
                "build.tags",
                "cap_add",
                "cap_drop",
                "dns",
                "dns_opt",
                "dns_search",
                "expose",
                "links",
                "networks.*.aliases",
                "networks.*.link_local_ips",
                "profiles",
                "tmpfs",
            ]
        },
        "services.*.volumes": _target,
        "services.*.devices": _target,
        "services.*.env_file": _path,
        "services.*.configs": _mounted(""),
        "services.*.secrets": _mounted("/run/secrets"),
        "services.*.ports": _port,
        "services.*.extra_hosts": str,
        "services.*.build.extra_hosts": str,
    }
)


def unique(value: Any, table: Table[Key] | None = _SAME) -> Any:
    """``value`` with, of list entries that are the same, only the last, at the first's place."""
    if table is None:
        return value
    if isinstance(value, dict):
        for key, item in value.items():
            below = table.below(key)
            if below is not None:
                value[key] = unique(item, below)
    elif isinstance(value, list) and table.entry is not None:
        kept: dict[str, Any] = {}
        for item in value:
            kept[table.entry(item)] = item
        return list(kept.values())
    return value


def reset(value: Any, paths: tuple[Path, ...]) -> None:
    """Drops from ``value``, in place, what lies at ``paths`` (``!reset``, ``!override``)."""
    for path in paths:
        holder = value
        for part in path[:-1]:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and path:
            holder.pop(path[-1], None)
