"""Which containers a command means: services of the project, or containers by name or id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from gemel.cli.app import App, no_file
from gemel.client.project.members import (
    NUMBER,
    ONE_OFF,
    PROJECT,
    SERVICE,
    Target,
    from_summary,
)
from gemel.errors import GemelError, InvalidInput, NotFound

__all__ = ["NUMBER", "ONE_OFF", "PROJECT", "SERVICE", "Target", "from_summary"]


def summaries(app: App, *, project: str = "", all: bool = True) -> list[dict[str, Any]]:
    """Entries of GET /containers/json, of one project or of all."""
    filters = {"label": [f"{PROJECT}={project}"]} if project else None
    found: list[dict[str, Any]] = app.client.get("/containers/json", all=all, filters=filters)
    return found


def of_project(app: App, *, one_offs: bool = False) -> list[Target]:
    """The project's containers in the order of service and number."""
    found = [from_summary(entry) for entry in summaries(app, project=app.name())]
    found = [target for target in found if one_offs or not target.one_off]
    return sorted(found, key=lambda target: (target.service, target.number, target.name))


def resolve(app: App, names: Sequence[str], *, one_offs: bool = False) -> list[Target]:
    """Targets of the names given; without names all of the project's.

    A name is a service if there is a project that has it, else a container.
    Raises NotFound, and InvalidInput if nothing is named and there is no project.
    """
    if not app.has_project():
        if not names:
            raise no_file()
        return [container(app, name) for name in names]
    known = of_project(app, one_offs=one_offs)
    if not names:
        return known
    out: list[Target] = []
    for name in names:
        matching = [target for target in known if target.service == name]
        out += matching or [_other(app, name)]
    return out


def _other(app: App, name: str) -> Target:
    try:
        return container(app, name)
    except NotFound:
        pass
    defined = defined_services(app)
    if name in defined and app.project().service(name).provider is not None:
        raise NotFound(f'service "{name}" has no container: a provider runs it')
    if name in defined:
        raise NotFound(
            f'service "{name}" is not running', resolution=f"start it with: gemel up -d {name}"
        )
    known = [*defined, *(target.name for target in of_project(app))]
    near = difflib.get_close_matches(name, known, 1)
    raise NotFound(
        f"no such service or container: {name}" + (f" (did you mean {near[0]}?)" if near else ""),
        resolution="`gemel ps -a` lists them",
    )


def defined_services(app: App) -> list[str]:
    """Names of the services in the Compose file; none without a readable file."""
    try:
        return list(app.project().services) if app.compose_files() else []
    except GemelError:
        return []


def container(app: App, name: str) -> Target:
    """A container by name, id or the id's beginning. Raises NotFound."""
    found = app.client.get(f"/containers/{name}/json")
    labels = found.get("Config", {}).get("Labels") or {}
    number = str(labels.get(NUMBER, "0"))
    return Target(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        service=labels.get(SERVICE, ""),
        number=int(number) if number.isdigit() else 0,
        state=found.get("State", {}).get("Status", ""),
        tty=bool(found.get("Config", {}).get("Tty")),
    )


def one(app: App, name: str, index: int = 0) -> Target:
    """The replica ``index`` of a service (0: the first that runs), or a container.

    Raises NotFound; InvalidInput if there is no replica of that number.
    """
    found = resolve(app, [name])
    if index:
        matching = [target for target in found if target.number == index]
        if not matching:
            raise InvalidInput(f'service "{name}" has no container number {index}')
        return matching[0]
    running = [target for target in found if target.running]
    return (running or found)[0]


def running(app: App, name: str, index: int = 0) -> Target:
    """Like ``one``, and it must run. Raises NotFound as Compose does."""
    target = one(app, name, index)
    if not target.running:
        what = f'service "{name}"' if target.service == name else f"container {target.name}"
        raise NotFound(f"{what} is not running", resolution=f"gemel start {name}")
    return target
