"""Instances as ends of calls."""

from __future__ import annotations

from gemel.engine import balancing
from gemel.engine.core import Core
from gemel.engine.records import Container
from gemel.observe.capture.records import Peer

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"


def peer(one: Container) -> Peer:
    """A container as an end of a call."""
    labels = one.request.labels or {}
    return Peer(
        instance=one.id,
        name=one.name,
        service=labels.get(SERVICE, ""),
        project=labels.get(PROJECT, ""),
    )


def virtual(core: Core) -> dict[str, Peer]:
    """Virtual addresses as ends of calls that no instance has answered: the service, where it is
    one, else the name."""
    found: dict[str, Peer] = {}
    for address, ((_, project, name), members) in balancing.shared(core).items():
        services = {one for member in members if (one := balancing.replica_of(member))}
        service = services.pop()[1] if len(services) == 1 else name
        found[address] = Peer(name=name, service=service, project=project)
    return found
