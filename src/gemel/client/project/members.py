"""The containers and micro VMs that belong to a project, as the engine lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gemel.client.engine import Client

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
DEPENDS_ON = "com.docker.compose.depends_on"
ONE_OFF = "com.docker.compose.oneoff"


class Target(NamedTuple):
    """A container or micro VM. service and number are empty for one outside of a project.

    id is empty for a service that a provider runs.
    """

    id: str
    name: str
    service: str = ""
    number: int = 0
    state: str = ""
    one_off: bool = False
    tty: bool = False
    depends_on: tuple[str, ...] = ()
    """Services that it needs, as the label of Compose has them."""
    image: str = ""
    health: str = ""
    restarts_with: tuple[str, ...] = ()
    """Those of them that it is restarted with."""

    @property
    def title(self) -> str:
        """What progress calls it."""
        return f"Container {self.name}" if self.id else f"Service {self.name}"

    @property
    def running(self) -> bool:
        """Whether it has processes now."""
        return self.state in ("running", "paused", "restarting")


def from_summary(entry: dict[str, Any]) -> Target:
    """From an entry of GET /containers/json."""
    labels = entry.get("Labels") or {}
    number = str(labels.get(NUMBER, "0"))
    return Target(
        id=entry["Id"],
        name=(entry.get("Names") or ["/" + entry["Id"][:12]])[0].lstrip("/"),
        service=labels.get(SERVICE, ""),
        number=int(number) if number.isdigit() else 0,
        state=entry.get("State", ""),
        one_off=str(labels.get(ONE_OFF, "")).lower() == "true",
        depends_on=tuple(
            part.split(":")[0] for part in str(labels.get(DEPENDS_ON, "")).split(",") if part
        ),
        image=entry.get("Image", ""),
        restarts_with=tuple(
            part.split(":")[0]
            for part in str(labels.get(DEPENDS_ON, "")).split(",")
            if part.endswith(":true")
        ),
    )


def of_project(client: Client, project: str, *, one_offs: bool = True) -> list[Target]:
    """All of a project's, stopped ones too, in the order of service and number."""
    filters = {"label": [f"{PROJECT}={project}"]}
    found = [
        from_summary(entry) for entry in client.get("/containers/json", all=True, filters=filters)
    ]
    found = [target for target in found if one_offs or not target.one_off]
    return sorted(found, key=lambda target: (target.service, target.number, target.name))


def needs(targets: Iterable[Target], *, reverse: bool = False) -> dict[Target, list[Target]]:
    """Which of the targets each one needs first (reverse: which need it)."""
    members = list(targets)
    by_service: dict[str, list[Target]] = {}
    for target in members:
        by_service.setdefault(target.service, []).append(target)
    out: dict[Target, list[Target]] = {target: [] for target in members}
    for target in members:
        for service in target.depends_on:
            for other in by_service.get(service, []):
                if other.service == target.service:
                    continue
                if reverse:
                    out[other].append(target)
                else:
                    out[target].append(other)
    return out
