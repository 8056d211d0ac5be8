"""What runs of a project now, read from the engine's answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gemel.compose.project import Project, Service

Json = dict[str, Any]
PREFIX = "com.docker.compose."
#: A name of a container that is to replace another one: the other's id goes before it.
_BESIDE = re.compile("[0-9a-f]{12}_")


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container of a project. mounts: target → name of the volume, or path, on it."""

    id: str
    name: str
    service: str
    index: int = 1
    state: str = "running"
    """created, running, paused, restarting, exited, dead, removing."""
    status: str = ""
    """As people read it: ``Up 3 minutes (healthy)``."""
    config_hash: str = ""
    image: str = ""
    image_id: str = ""
    oneoff: bool = False
    networks: tuple[str, ...] = ()
    mounts: dict[str, str] = {}
    anonymous: dict[str, str] = {}
    """target → name of the anonymous volume there."""
    depends_on: tuple[tuple[str, str, bool], ...] = ()
    labels: dict[str, str] = {}

    @property
    def running(self) -> bool:
        return self.state in ("running", "restarting", "paused")


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """All of a project. networks, volumes: name → labels. images: reference → id."""

    containers: tuple[Container, ...] = ()
    networks: dict[str, dict[str, str]] = {}
    volumes: dict[str, dict[str, str]] = {}
    images: dict[str, str] = {}

    def of(self, service: str) -> list[Container]:
        """The containers of a service by their number, one-off ones left out."""
        found = [c for c in self.containers if c.service == service and not c.oneoff]
        # the one of an update that was broken off comes after the one it was to replace
        return sorted(found, key=lambda c: (c.index, bool(_BESIDE.match(c.name)), c.name))


def observe(
    containers: Sequence[Json],
    networks: Sequence[Json] = (),
    volumes: Sequence[Json] = (),
    images: Mapping[str, str] | None = None,
) -> Observed:
    """From GET /containers/json (all=true), /networks, /volumes; images: reference → id."""
    return Observed(
        containers=tuple(_container(c) for c in containers),
        networks={n["Name"]: n.get("Labels") or {} for n in networks},
        volumes={v["Name"]: v.get("Labels") or {} for v in volumes},
        images=dict(images or {}),
    )


def _container(body: Json) -> Container:
    labels = body.get("Labels") or {}
    number = labels.get(PREFIX + "container-number", "1")
    mounts, anonymous = {}, {}
    for mount in body.get("Mounts") or ():
        target = mount.get("Destination") or ""
        if mount.get("Type") == "volume":
            mounts[target] = name = mount.get("Name") or ""
            if _is_anonymous(name):
                anonymous[target] = name
        else:
            which = "Name" if mount.get("Type") == "image" else "Source"
            mounts[target] = mount.get(which) or ""
    settings = (body.get("NetworkSettings") or {}).get("Networks") or {}
    names = body.get("Names") or [body.get("Id", "")]
    return Container(
        id=body["Id"],
        name=names[0].lstrip("/"),
        service=labels.get(PREFIX + "service", ""),
        index=int(number) if number.isdigit() else 1,
        state=body.get("State") or "",
        status=body.get("Status") or "",
        config_hash=labels.get(PREFIX + "config-hash", ""),
        image=body.get("Image") or "",
        image_id=labels.get(PREFIX + "image") or body.get("ImageID") or "",
        oneoff=labels.get(PREFIX + "oneoff", "False").lower() == "true",
        networks=tuple(settings),
        mounts=mounts,
        anonymous=anonymous,
        depends_on=tuple(_depends(labels.get(PREFIX + "depends_on", ""))),
        labels=labels,
    )


def _is_anonymous(name: str) -> bool:
    return len(name) == 64 and all(c in "0123456789abcdef" for c in name)


def _depends(text: str) -> list[tuple[str, str, bool]]:
    found = []
    for entry in filter(None, text.split(",")):
        name, _, rest = entry.partition(":")
        condition, _, restart = rest.partition(":")
        found.append((name, condition or "service_started", restart == "true"))
    return found


def project_from(name: str, observed: Observed) -> Project:
    """A project as far as its containers tell, for commands that have no file (-p alone)."""
    services: dict[str, Service] = {}
    counts: dict[str, int] = {}
    known = {c.service for c in observed.containers}
    for container in observed.containers:
        depends = {
            needed: {"condition": condition, "restart": restart, "required": True}
            for needed, condition, restart in container.depends_on
            if needed in known
        }
        counts[container.service] = counts.get(container.service, 0) + (not container.oneoff)
        services[container.service] = Service(
            container.service,
            {
                "image": container.image,
                "depends_on": depends,
                "scale": counts[container.service],
            },
        )
    labels = next((c.labels for c in observed.containers), {})
    files = labels.get(PREFIX + "project.config_files", "")
    return Project(
        name=name,
        working_dir=labels.get(PREFIX + "project.working_dir", ""),
        files=tuple(f for f in files.split(",") if f),
        services=dict(sorted(services.items())),
        networks=_resources(observed.networks, name, "network"),
        volumes=_resources(observed.volumes, name, "volume"),
    )


def _resources(found: Mapping[str, Mapping[str, str]], project: str, kind: str) -> dict[str, Json]:
    return {
        labels.get(PREFIX + kind) or name: {"name": name}
        for name, labels in found.items()
        if labels.get(PREFIX + "project") == project
    }
