"""Which services a service's containers are tied to. Pure."""

from __future__ import annotations

from gemel.compose.project import Service


def shares(service: Service) -> list[str]:
    """Services whose containers this one's are tied to: namespaces and volumes."""
    found = []
    for key in ("network_mode", "ipc", "pid", "uts"):
        value = str(service.config.get(key) or "")
        if value.startswith("service:"):
            found.append(value.removeprefix("service:"))
    for source in service.config.get("volumes_from") or ():
        if not source.startswith("container:"):
            found.append(source.partition(":")[0])
    return found


def refers(service: Service) -> list[str]:
    """Services whose containers must exist before this one's can be made."""
    links = [link.partition(":")[0] for link in service.config.get("links") or ()]
    return [*shares(service), *links]
