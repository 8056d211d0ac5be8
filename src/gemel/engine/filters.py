"""Docker's filters (``{"label": ["a=b"], …}``), as pure predicates."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gemel.engine.facade import Filters
from gemel.engine.records import Container
from gemel.errors import InvalidInput


def labels(have: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether all of ``key`` or ``key=value`` in wanted are there."""
    for want in wanted:
        key, separator, value = want.partition("=")
        if key not in have or (separator and have[key] != value):
            return False
    return True


def name(have: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether one of the names contains or matches (regular expression) one that is wanted."""
    for want in wanted:
        try:
            pattern = re.compile(want)
        except re.error as error:
            raise InvalidInput(f"invalid filter 'name={want}'", details=str(error)) from error
        if any(pattern.search(one) for one in have):
            return True
    return False


def known(wanted: Filters, allowed: set[str]) -> None:
    """Raises InvalidInput for a filter that Docker does not have here."""
    for key in wanted:
        if key not in allowed:
            raise InvalidInput(f"invalid filter '{key}'")


CONTAINER_FILTERS = {
    "id", "name", "label", "status", "health", "exited", "ancestor", "network", "volume",
    "before", "since", "publish", "expose", "is-task", "isolation", "runtime",
}  # fmt: skip


def container(one: Container, wanted: Filters, ancestors: set[str]) -> bool:
    """Whether a container passes all filters but before and since."""
    config = one.request
    checks: dict[str, Callable[[Sequence[str]], bool]] = {
        "id": lambda v: any(one.id.startswith(x) for x in v),
        "name": lambda v: name([one.name, "/" + one.name], v),
        "label": lambda v: labels(config.labels or {}, v),
        "status": lambda v: one.state.status in v,
        "health": lambda v: (one.state.health or "none") in v,
        "exited": lambda v: one.state.status == "exited" and str(one.state.exit_code) in v,
        "ancestor": lambda v: one.image_id in ancestors or one.image_ref in v,
        "network": lambda v: any(
            e.network_name in v or any(e.network_id.startswith(x) for x in v) for e in one.endpoints
        ),
        "volume": lambda v: any(m.name in v or m.target in v or m.source in v for m in one.mounts),
        "publish": lambda v: any(
            _port(x, b.host_port, b.protocol) for x in v for b in one.bindings
        ),
        "expose": lambda v: any(
            _port(x, int(p.split("/")[0]), p.partition("/")[2] or "tcp")
            for x in v
            for p in config.exposed_ports or {}
        ),
        "runtime": lambda v: one.runtime.value in v,
        "is-task": lambda v: v[0] not in ("true", "1") if v else True,
    }
    return all(checks[key](values) for key, values in wanted.items() if key in checks)


def _port(want: str, port: int, protocol: str) -> bool:
    number, _, kind = want.partition("/")
    low, _, high = number.partition("-")
    try:
        inside = int(low) <= port <= int(high or low)
    except ValueError:
        raise InvalidInput(f"invalid port filter '{want}'") from None
    return inside and protocol == (kind or "tcp")


def _untagged(name: str) -> str:
    """An image's name without its tag or digest."""
    head, slash, last = name.partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


def event(one: Mapping[str, Any], wanted: Filters) -> bool:
    """Whether an event passes (Docker Engine API: GET /events, filters)."""
    actor = one["Actor"]
    attributes = actor["Attributes"]
    for key, values in wanted.items():
        if key == "type":
            good = one["Type"] in values
        elif key == "event":
            good = any(one["Action"] == v or one["Action"].split(":")[0] == v for v in values)
        elif key == "label":
            good = labels(attributes, values)
        elif key in ("container", "image", "volume", "network"):
            good = one["Type"] == key and any(
                actor["ID"].startswith(v) or attributes.get("name") == v for v in values
            )
            if key == "image" and one["Type"] in ("image", "container"):
                name = attributes.get("image" if one["Type"] == "container" else "name", "")
                good = good or bool({name, _untagged(name)} & set(values))
        elif key == "scope":
            good = one["scope"] in values
        else:
            good = key in ("daemon", "node", "service", "plugin", "secret", "config") and False
        if not good:
            return False
    return True


def glob(text: str, patterns: Sequence[str]) -> bool:
    """Whether the text matches one of the shell patterns."""
    return any(fnmatch.fnmatch(text, pattern) for pattern in patterns)
