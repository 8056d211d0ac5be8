"""What of a project is not carried out in the runtimes that it chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gemel.compose import model as models
from gemel.compose import warm
from gemel.compose.assemble import Origins
from gemel.compose.fitness import unfit
from gemel.compose.problems import Path, Place, Problem, WrongFiles, dotted
from gemel.compose.project import Project, Service, runtime_words
from gemel.compose.support import BUILDS, SERVICE, TOP, Entry, Level
from gemel.errors import InvalidInput
from gemel.model.buildcache import choose
from gemel.model.choice import AUTO
from gemel.model.instance import RuntimeName

_EMPTY: tuple[Any, ...] = (None, False, "", 0, "0", [], {})


class Finding(msgspec.Struct, frozen=True):
    """An attribute that is ignored or refused. service: empty for the top of the file."""

    service: str
    attribute: str
    level: Level
    runtime: str
    words: str
    place: Place = Place("")

    def render(self) -> str:
        """One line for a person: place, attribute, what becomes of it and why."""
        file, line, column, _ = self.place
        at = f"{file}:{line}:{column}: " if line else ""
        return at + self.told()

    def told(self) -> str:
        """The same without the place."""
        runtime = f" in a {self.runtime}" if self.runtime else ""
        return f"{self.attribute} is {self.level}{runtime}: {self.words}"


def lint(
    project: Project, origins: Origins | None = None, services: Sequence[str] = ()
) -> list[Finding]:
    """All findings for the services (none: all that are enabled), in the file's order."""
    names = services or list(project.services)
    found: list[Finding] = []
    for name in names:
        found += _service(project.service(name), origins)
    found += _top(project, origins)
    found += _models(project, names, origins)
    names = [name for name in names if project.service(name).provider is None]
    found += _runtimes(project, names, origins)
    for name, path, words in unfit(project, list(names)):
        place = origins.place(path) if origins else Place("")
        found.append(Finding(name, dotted(path), Level.REFUSED, "", words, place))
    found += _ports(project, names, origins)
    found += _caches(project, names, origins)
    found += _warm(project, names, origins)
    return found


def refuse(findings: Sequence[Finding]) -> None:
    """Raises InvalidInput if anything is refused, telling of all of it."""
    refused = [f for f in findings if f.level is Level.REFUSED]
    if refused:
        many = "1 attribute" if len(refused) == 1 else f"{len(refused)} attributes"
        raise InvalidInput(
            f"{many} of the file cannot be carried out",
            "\n".join(Problem(f.place, f.told()).render() for f in refused),
            "Remove them, or choose the other runtime for the service"
            if any(f.runtime for f in refused)
            else "Mend or remove them",
        )


def complete(error: WrongFiles) -> WrongFiles:
    """The same error with what of the right rest of the project would be refused."""
    partial = error.partial
    if partial is None:
        return error
    # of those whose runtime the engine chooses it is not known yet what is refused
    chosen = [s.name for s in partial.project if s.config.get("runtime") != AUTO]
    try:
        found = lint(partial.project, partial.origins, chosen) if chosen else []
    except (LookupError, TypeError, ValueError, AttributeError):
        return error  # lint is of right projects; of this one the rest is not known
    for finding in found:
        if finding.level is Level.REFUSED:
            error.problems.add(finding.place, finding.told())
    return error.again()


def _service(service: Service, origins: Origins | None) -> Iterator[Finding]:
    if service.provider is not None:
        yield from _provided(service, origins)
        return
    runtime = service.runtime
    label = "micro VM" if runtime is RuntimeName.MICROVM else "container"
    at: Path = ("services", service.name)
    for path, entry in _matches(service.config, SERVICE):
        level = entry.microvm if runtime is RuntimeName.MICROVM else entry.container
        both = entry.container == entry.microvm
        if level is not Level.SUPPORTED:
            yield _finding(service.name, (*at, *path), level, "" if both else label, entry, origins)
    for path, entry in _matches(service.build or {}, BUILDS):
        if entry.container is not Level.SUPPORTED:
            where = (*at, "build", *path)
            yield _finding(service.name, where, entry.container, "", entry, origins)


def _provided(service: Service, origins: Origins | None) -> Iterator[Finding]:
    """What a service says beside its provider is for a container, which there is not."""
    for key, value in service.config.items():
        if key in _OF_PROVIDERS or key.startswith("x-") or value in _EMPTY:
            continue
        path: Path = ("services", service.name, key)
        place = origins.place(path, key=True) if origins else Place("")
        yield Finding(service.name, dotted(path), Level.IGNORED, "", _NO_CONTAINER, place)


_OF_PROVIDERS = ("provider", "depends_on", "profiles", "networks")
_NO_CONTAINER = "a provider runs the service, which is no container"


def _models(project: Project, names: Sequence[str], origins: Origins | None) -> Iterator[Finding]:
    """Models whose server the file names: what that server is not told, and who cannot reach it."""
    for key, model in models.used(project, names).items():
        url = models.endpoint(model)
        for part in ("context_size", "runtime_flags") if url else ():
            if model.get(part):
                path: Path = ("models", key, part)
                place = origins.place(path, key=True) if origins else Place("")
                words = f"the server at {url} has its own configuration"
                yield Finding("", dotted(path), Level.IGNORED, "", words, place)
    for name in names:
        service = project.service(name)
        for key in models.uses(service) if service.network_mode != "host" else ():
            url = models.endpoint(project.models.get(key) or {})
            if models.is_local(url):
                path = ("models", key, "x-gemel", "endpoint")
                place = origins.place(path) if origins else Place("")
                words = f"in {name} it is {name} itself; the host is host.docker.internal"
                yield Finding(name, dotted(path), Level.REFUSED, "", words, place)


def _finding(
    service: str, path: Path, level: Level, runtime: str, entry: Entry, origins: Origins | None
) -> Finding:
    place = origins.place(path, key=True) if origins else Place("")
    return Finding(service, dotted(path), level, runtime, entry.why, place)


def _top(project: Project, origins: Origins | None) -> Iterator[Finding]:
    model = {kind: getattr(project, kind) for kind in ("networks", "volumes", "configs", "secrets")}
    for path, entry in _matches(model, TOP):
        if entry.container is not Level.SUPPORTED:
            yield _finding("", path, entry.container, "", entry, origins)


def _matches(value: Any, table: dict[str, Entry]) -> Iterator[tuple[Path, Entry]]:
    """Entries of a table that a value is about, with the paths of what they are about."""
    for key, entry in table.items():
        for path, item in _at(value, key.split("."), ()):
            if entry.when is not None:
                hit = item not in (None, "") and entry.when(item)
            else:
                hit = item not in _EMPTY
            if hit:
                yield path, entry


def _at(value: Any, parts: list[str], path: Path) -> Iterator[tuple[Path, Any]]:
    if not parts:
        yield path, value
    elif parts[0] == "*":
        items = value.items() if isinstance(value, dict) else enumerate(value or ())
        for key, item in items:
            yield from _at(item, parts[1:], (*path, key))
    elif isinstance(value, dict) and parts[0] in value:
        yield from _at(value[parts[0]], parts[1:], (*path, parts[0]))


def _runtimes(project: Project, names: Sequence[str], origins: Origins | None) -> Iterator[Finding]:
    """Runtimes that there are not. (The file is right: another program may have them.)"""
    for name in names:
        words = runtime_words(project.service(name).config.get("runtime") or "")
        if words:
            path: Path = ("services", name, "runtime")
            place = origins.place(path) if origins else Place("")
            yield Finding(name, dotted(path), Level.REFUSED, "", words, place)


def _ports(project: Project, names: Sequence[str], origins: Origins | None) -> Iterator[Finding]:
    """A port that two services publish: only one of them could have it."""
    taken: dict[tuple[str, str, str], str] = {}
    for name in names:
        for index, port in enumerate(project.service(name).ports):
            published = str(port.get("published") or "0")
            if published == "0" or "-" in published:
                continue
            key = (port.get("host_ip") or "", published, port.get("protocol", "tcp"))
            other = taken.setdefault(key, name)
            if other != name:
                path: Path = ("services", name, "ports", index)
                place = origins.item(path[:-1], published) if origins else Place("")
                words = f'service "{other}" publishes {published}/{key[2]} already'
                yield Finding(name, dotted(path), Level.REFUSED, "", words, place)


def _caches(project: Project, names: Sequence[str], origins: Origins | None) -> Iterator[Finding]:
    """Entries of a build's cache_from and cache_to that have no effect, each with its reason."""
    for name in names:
        build = project.service(name).build or {}
        chosen = choose(build.get("cache_from") or (), build.get("cache_to") or ())
        for key, unused in (("cache_from", chosen.unused_from), ("cache_to", chosen.unused_to)):
            path: Path = ("services", name, "build", key)
            for words in unused:
                place = origins.place(path, key=True) if origins else Place("")
                yield Finding(name, dotted(path), Level.IGNORED, "", words, place)


def _warm(project: Project, names: Sequence[str], origins: Origins | None) -> Iterator[Finding]:
    """Warm replicas that are asked for and cannot be."""
    for name in names:
        for path, words in warm.obstacles(project.service(name)):
            place = Place("")
            if origins:
                item = isinstance(path[-1], int)
                place = origins.place(("services", name, *path), key=not item)
            asked = f"services.{name}.x-gemel.snapshot"
            yield Finding(name, asked, Level.IGNORED, "", words, place)
