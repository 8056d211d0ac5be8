"""What a container was made from, as one hash: it differs when the container must be made anew.

It is Compose's own hash, over its JSON of the service, so that neither program
makes containers anew that the other has made from the same file.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from gemel.compose.project import Service
from gemel.compose.render import resource_json, service_json

Json = dict[str, Any]

_EXCLUDED = ("build", "depends_on", "scale", "profiles", "pull_policy")


def config_hash(service: Service) -> str:
    """Hash of all that makes a container of the service what it is.

    Left out, as in Compose: how its image is built or got, what it waits for,
    how many there are, which profiles enable it.
    """
    kept = {k: v for k, v in service.config.items() if k not in _EXCLUDED}
    if kept.get("deploy") is not None:
        kept["deploy"] = {k: v for k, v in kept["deploy"].items() if k != "replicas"}
    return _hash(service_json(Service(service.name, kept)))


def network_hash(config: Json) -> str:
    """Hash of what a network is made from."""
    made = resource_json("networks", config)
    made["ipam"] = {k: v for k, v in made["ipam"].items() if k != "options"}
    return _hash(made)


def volume_hash(config: Json) -> str:
    """Hash of what a volume is made from."""
    return _hash(resource_json("volumes", {**config, "driver": config.get("driver") or "local"}))


def _hash(value: Json) -> str:
    return hashlib.sha256(_as_go(msgspec.json.encode(value).decode()).encode()).hexdigest()


_ESCAPED = re.compile("[<>&\u2028\u2029]")


def _as_go(text: str) -> str:
    """Go's encoder writes these characters as escapes."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
