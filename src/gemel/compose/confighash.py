"""What a container was made from, as one hash: it differs when the container must be made anew."""

from __future__ import annotations

import hashlib

import msgspec

from gemel.compose.project import Service

_EXCLUDED = ("build", "depends_on", "scale", "profiles", "pull_policy", "develop", "attach")


def config_hash(service: Service) -> str:
    """Hash of all that makes a container of the service what it is.

    Left out, as in Compose: how its image is built or got, what it waits for,
    how many there are, which profiles enable it.
    """
    kept = {k: v for k, v in service.config.items() if k not in _EXCLUDED and v is not None}
    if "deploy" in kept:
        kept["deploy"] = {k: v for k, v in kept["deploy"].items() if k != "replicas"}
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()
