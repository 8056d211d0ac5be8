"""Values that Compose leaves to the engine, which would refuse them half-way through an ``up``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from gemel.compose.problems import Path, nearest
from gemel.compose.project import Project

_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")
_POLICIES = ("no", "always", "unless-stopped", "on-failure")


def unfit(project: Project, names: list[str]) -> Iterator[tuple[str, Path, str]]:
    """Service (or nothing), place in the model and words of each value that cannot be meant."""
    for name in names:
        config = project.service(name).config
        at: Path = ("services", name)
        restart = str(config.get("restart") or "no")
        if not _RESTART.fullmatch(restart):
            words = f'there is no policy "{restart}"{nearest(restart, _POLICIES)}'
            yield name, (*at, "restart"), f"{words}; it is one of {', '.join(_POLICIES)}"
        for network, use in (config.get("networks") or {}).items():
            for key, version in (("ipv4_address", 4), ("ipv6_address", 6)):
                if words := _address((use or {}).get(key), version):
                    yield name, (*at, "networks", network, key), words
    for key, network in project.networks.items():
        for index, pool in enumerate((network.get("ipam") or {}).get("config") or ()):
            if words := _subnet(pool.get("subnet")):
                yield "", ("networks", key, "ipam", "config", index, "subnet"), words


def _address(text: Any, version: int) -> str:
    try:
        fits = not text or ipaddress.ip_address(str(text)).version == version
    except ValueError:
        fits = False
    return "" if fits else f'"{text}" is no IPv{version} address'


def _subnet(text: Any) -> str:
    try:
        ipaddress.ip_network(str(text or "0.0.0.0/0"), strict=False)
    except ValueError:
        return f'"{text}" is no subnet, such as 10.5.0.0/16'
    return ""
