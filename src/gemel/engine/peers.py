"""Instances as ends of calls."""

from __future__ import annotations

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
