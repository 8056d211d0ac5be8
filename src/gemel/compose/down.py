"""Plans of ``down``, ``stop``, ``start`` and ``rm``: whole services, in the graph's order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gemel.compose.observed import Container, Observed
from gemel.compose.plan import orphans
from gemel.compose.project import Project
from gemel.compose.requests import PREFIX
from gemel.compose.steps import Draft, Kind, Plan


class DownOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of ``down``. images: ``""``, ``local`` (without a name in the file), ``all``."""

    services: tuple[str, ...] = ()
    volumes: bool = False
    images: str = ""
    remove_orphans: bool = False
    timeout: int | None = None


def plan_down(project: Project, observed: Observed, options: DownOptions) -> Plan:
    """Containers in reverse order of dependency, then networks, volumes, images."""
    draft = Draft()
    names = list(options.services) or [*project.services, *project.disabled]
    for name in names:
        project.service(name)
    gone: dict[str, set[int]] = {}
    for name in _reversed(project, names):
        containers = [c for c in observed.containers if c.service == name]
        after = _dependents(project, name, gone)
        gone[name] = {
            _remove(draft, c, "down", after, options.timeout, options.volumes)
            for c in sorted(containers, key=lambda c: -c.index)
        }
    if not options.services:
        known = set(names)
        for container in orphans(project, observed) if options.remove_orphans else ():
            if container.service not in known:
                one = _remove(draft, container, "orphan", set(), options.timeout, False)
                gone.setdefault("", set()).add(one)
        _resources(project, observed, options, draft, set().union(*gone.values(), set()))
    return draft.plan()


def _resources(
    project: Project, observed: Observed, options: DownOptions, draft: Draft, after: set[int]
) -> None:
    for key, config in project.networks.items():
        name = project.network_name(key)
        if not config.get("external") and _ours(project, observed.networks.get(name)):
            draft.add(Kind.REMOVE_NETWORK, name, "down", after, key=key)
    for key, config in project.volumes.items() if options.volumes else ():
        name = project.volume_name(key)
        if not config.get("external") and _ours(project, observed.volumes.get(name)):
            draft.add(Kind.REMOVE_VOLUME, name, "--volumes", after, key=key)
    for image in _images(project, options.images):
        if image in observed.images:
            draft.add(Kind.REMOVE_IMAGE, image, f"--rmi {options.images}", after)


def _ours(project: Project, labels: dict[str, str] | None) -> bool:
    """Whether a resource is there and not another project's."""
    return labels is not None and labels.get(PREFIX + "project", project.name) == project.name


def _images(project: Project, kind: str) -> list[str]:
    if not kind:
        return []
    services = [*project.services.values(), *project.disabled.values()]
    kept = [s for s in services if kind == "all" or (s.build is not None and not s.image)]
    return list(dict.fromkeys(project.image_of(s) for s in kept))


def _reversed(project: Project, names: Sequence[str]) -> list[str]:
    """``names``, dependents before what they depend on."""
    ordered = project.with_dependencies(names)
    return [name for name in reversed(ordered) if name in set(names)]


def _dependents(project: Project, name: str, done: dict[str, set[int]]) -> set[int]:
    after: set[int] = set()
    for other in [*project.services.values(), *project.disabled.values()]:
        if name in other.depends_on:
            after |= done.get(other.name, set())
    return after


def _remove(
    draft: Draft,
    container: Container,
    reason: str,
    after: set[int],
    timeout: int | None,
    volumes: bool,
) -> int:
    if container.running:
        after = {_stop(draft, container, reason, after, timeout)}
    return draft.add(
        Kind.REMOVE,
        container.name,
        reason,
        after,
        service=container.service,
        index=container.index,
        container=container,
        volumes=volumes,
    )


def _stop(
    draft: Draft, container: Container, reason: str, after: set[int], timeout: int | None
) -> int:
    return draft.add(
        Kind.STOP,
        container.name,
        reason,
        after,
        service=container.service,
        index=container.index,
        container=container,
        timeout=timeout,
    )


def plan_stop(
    project: Project,
    observed: Observed,
    services: Sequence[str] = (),
    timeout: int | None = None,
) -> Plan:
    """Stops what runs, dependents first. Raises NotFound for an unknown service."""
    draft = Draft()
    done: dict[str, set[int]] = {}
    names = list(services) or [*project.services, *project.disabled]
    for name in _reversed(project, names):
        after = _dependents(project, name, done)
        running = [c for c in observed.of(name) if c.running]
        done[name] = {_stop(draft, c, "stop", after, timeout) for c in running}
    return draft.plan()


def plan_start(project: Project, observed: Observed, services: Sequence[str] = ()) -> Plan:
    """Starts containers that are there, in order of dependency, with its conditions."""
    draft = Draft()
    started: dict[str, set[int]] = {}
    names = list(services) or list(project.services)
    for name in [n for n in project.with_dependencies(names) if n in set(names)]:
        ready: set[int] = set()
        for other, dependency in project.service(name).depends_on.items():
            if other not in started:
                continue
            if dependency.condition == "service_started":
                ready |= started[other]
            else:
                ready.add(
                    draft.add(
                        Kind.WAIT,
                        other,
                        f"{name} waits for {dependency.condition}",
                        started[other],
                        service=other,
                        condition=dependency.condition,
                        optional=not dependency.required,
                    )
                )
        started[name] = set()
        for container in observed.of(name):
            if container.running:
                draft.unchanged.append(container)
                continue
            started[name].add(
                draft.add(
                    Kind.START,
                    container.name,
                    f"it is {container.state}",
                    ready,
                    service=name,
                    index=container.index,
                    container=container,
                )
            )
    return draft.plan()
