"""Checks of the merged model that need more than one place: references, cycles, conflicts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gemel.compose import extension, units
from gemel.compose import model as models
from gemel.compose.assemble import Origins
from gemel.compose.broken import Broken, without
from gemel.compose.problems import Path, Problems, dotted, nearest
from gemel.compose.schema import REQUIRED
from gemel.compose.tables import Table

Json = dict[str, Any]
_EXPOSED = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(?:tcp|udp|sctp))?")


_REQUIRED = Table(REQUIRED)


def required(model: Json, origins: Origins, problems: Problems, broken: Broken) -> None:
    """Keys that must be there, now that all is merged. Entries of lists without them go."""
    lacking: dict[Path, None] = {}
    for path, key in _absent(model, _REQUIRED, ()):
        if any(isinstance(part, int) for part in path):
            lacking[path] = None
        elif broken.touches((*path, key)):
            continue
        else:
            broken.mark((*path, key))
        words = f"{dotted(origins.written(path))} needs the key {key}"
        problems.add(origins.place(path, key=True), words)
    without(model, lacking)


def _absent(
    value: Any, table: Table[tuple[str, ...]] | None, path: Path
) -> Iterator[tuple[Path, str]]:
    if table is None or value is None:
        return
    if isinstance(value, dict):
        for key in table.entry or ():
            if value.get(key) is None:
                yield path, key
        for key, item in value.items():
            if below := table.below(key):
                yield from _absent(item, below, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _absent(item, table.star, (*path, index))


class Consistency:
    """Checks a normalised model; ``enabled`` are the services that will run.

    broken: what was told of already; nothing is told of what is absent therefore.
    """

    def __init__(
        self,
        model: Json,
        enabled: list[str],
        origins: Origins,
        problems: Problems,
        broken: Broken,
    ) -> None:
        self.model = model
        self.services: dict[str, Json] = model.get("services") or {}
        self.enabled = enabled
        self.origins = origins
        self.problems = problems
        self.broken = broken

    def check(self) -> None:
        for name in self.enabled:
            service = self.services[name]
            self._image(name, service)
            self._references(name, service)
            self._exposed(name, service)
            self._dependencies(name, service)
            self._numbers(name, service)
            self._mounts(name, service)
            self._watch(name, service)
            for path, words in list(extension.problems(service.get("x-gemel"))):
                self._tell((*self._at(name, "x-gemel"), *path), words, key=True)
                service.pop("x-gemel", None)
        for key, model in (self.model.get("models") or {}).items():
            for path, words in list(models.problems((model or {}).get("x-gemel"))):
                self._tell(("models", key, "x-gemel", *path), words, key=True)
                model.pop("x-gemel", None)
        self._names()
        self._files()
        self._external()
        self._cycles()

    def _tell(self, path: Path, words: str, key: bool = False) -> None:
        self.problems.add(self.origins.place(path, key), words)

    def _tell_item(self, path: Path, text: str, words: str) -> None:
        """Tells of an entry of a list, by what it says."""
        self.problems.add(self.origins.item(path[:-1], text), words)

    def _at(self, name: str, *more: str | int) -> Path:
        return ("services", name, *more)

    def _there(self, name: str, key: str) -> bool:
        """Whether a service says something for ``key``, or tried to."""
        given = self.services[name].get(key)
        here = key in self.services[name] if key == "provider" else bool(given)
        return here or self.broken.touches(self._at(name, key))

    def _image(self, name: str, service: Json) -> None:
        if not any(self._there(name, key) for key in ("image", "build", "provider")):
            words = f'service "{name}" has neither an image nor a build context'
            self._tell(self._at(name), words, key=True)
        build = service.get("build") or {}
        if build.get("dockerfile") and build.get("dockerfile_inline"):
            words = "dockerfile and dockerfile_inline exclude each other"
            self._tell(self._at(name, "build", "dockerfile_inline"), words, key=True)
        platforms = build.get("platforms") or []
        if platforms and service.get("platform") and service["platform"] not in platforms:
            words = f"build.platforms must hold the platform {service['platform']}"
            self._tell(self._at(name, "build", "platforms"), words)
        for key, context in (build.get("additional_contexts") or {}).items():
            target = context.removeprefix("service:")
            if target == context or self.broken.touches(self._at(target, "build")):
                continue
            if not (self.services.get(target) or {}).get("build"):
                words = f'"{target}" is not a service that is built'
                self._tell(self._at(name, "build", "additional_contexts", key), words)

    def _exposed(self, name: str, service: Json) -> None:
        for index, entry in enumerate(service.get("expose") or ()):
            found = _EXPOSED.fullmatch(str(entry))
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
            if not 0 < first <= last < 65536:
                words = f'expose takes a port or a range of ports (1 to 65535), not "{entry}"'
                self._tell_item(self._at(name, "expose", index), str(entry), words)

    def _known(self, path: Path, kind: str, key: str) -> None:
        known = self.model.get(kind) or {}
        if key not in known and not self.broken.touches((kind, key)):
            words = f'undefined {kind[:-1]} "{key}"{nearest(key, known)}'
            if isinstance(path[-1], int):
                self._tell_item(path, key, words)
            elif self.origins.has(path):
                self._tell(path, words, key=True)
            else:
                self._tell_item(path, key, words)

    def _references(self, name: str, service: Json) -> None:
        if service.get("network_mode") and service.get("networks"):
            words = "network_mode and networks exclude each other"
            self._tell(self._at(name, "network_mode"), words, key=True)
        for kind in ("networks", "models"):
            for key in service.get(kind) or {}:
                self._known(self._at(name, kind, key), kind, key)
        for kind in ("configs", "secrets"):
            for index, use in enumerate(service.get(kind) or ()):
                self._known(self._at(name, kind, index), kind, use.get("source") or "")
        for index, use in enumerate((service.get("build") or {}).get("secrets") or ()):
            self._known(
                self._at(name, "build", "secrets", index), "secrets", use.get("source") or ""
            )
        for index, volume in enumerate(service.get("volumes") or ()):
            if isinstance(volume, dict) and volume.get("type") == "volume" and volume.get("source"):
                self._known(self._at(name, "volumes", index), "volumes", volume["source"])
            if isinstance(volume, dict) and volume.get("type") in ("bind", "image"):
                self._sourced(volume, self._at(name, "volumes", index))

    def _sourced(self, volume: Json, where: Path) -> None:
        if not volume.get("source"):
            kind = "a bind" if volume["type"] == "bind" else "an image volume"
            self._tell(where, f"{kind} needs a source")

    def _dependencies(self, name: str, service: Json) -> None:
        for key, entry in (service.get("depends_on") or {}).items():
            if key in self.enabled:
                continue
            if key in self.services:
                if entry.get("required", True):
                    profiles = ", ".join(self.services[key].get("profiles") or ())
                    words = f'service "{name}" depends on "{key}", which no active profile enables'
                    self._tell_reference(name, key, f"{words} ({profiles})")
                continue
            if self.broken.touches(("services", key)):
                continue
            words = f'service "{name}" depends on undefined service "{key}"'
            self._tell_reference(name, key, words + nearest(key, self.services))

    def _tell_reference(self, name: str, other: str, words: str) -> None:
        """Tells of a reference to another service, wherever in the service it stands."""
        path = self._at(name, "depends_on", other)
        if self.origins.has(path):
            self._tell(path, words, key=True)
            return
        service = self.services[name]
        for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
            if service.get(key) == f"service:{other}":
                self._tell(self._at(name, key), words)
                return
        for key in ("links", "volumes_from", "depends_on"):
            if any(entry.split(":")[0] == other for entry in service.get(key) or ()):
                self._tell_item(self._at(name, key, 0), other, words)
                return
        self._tell(self._at(name), words, key=True)

    def _numbers(self, name: str, service: Json) -> None:
        deploy = service.get("deploy") or {}
        scale, replicas = service.get("scale"), deploy.get("replicas")
        if scale is not None and replicas is not None and scale != replicas:
            self._tell(self._at(name, "scale"), "scale and deploy.replicas differ")
        count = scale if scale is not None else replicas
        if isinstance(count, int) and count < 0:
            at = self._at(name, "scale" if scale is not None else "deploy")
            self._tell(at, "there cannot be fewer than 0 instances")
        if isinstance(count, int) and count > 1 and service.get("container_name"):
            words = f"container_name must be unique, and there would be {count} containers"
            self._tell(self._at(name, "container_name"), words)
        limits = (deploy.get("resources") or {}).get("limits") or {}
        reserved = (deploy.get("resources") or {}).get("reservations") or {}
        for key, other, where in (
            ("cpus", limits.get("cpus"), "limits.cpus"),
            ("mem_limit", limits.get("memory"), "limits.memory"),
            ("pids_limit", limits.get("pids"), "limits.pids"),
            ("mem_reservation", reserved.get("memory"), "reservations.memory"),
        ):
            mine = service.get(key)
            if mine and other and str(mine) != str(other):
                words = f"{key} and deploy.resources.{where} differ"
                self._tell(self._at(name, key), words, key=True)
        test = (service.get("healthcheck") or {}).get("test")
        if test and test[0] not in ("CMD", "CMD-SHELL", "NONE"):
            words = "the first of healthcheck.test must be CMD, CMD-SHELL or NONE"
            self._tell(self._at(name, "healthcheck", "test"), words)

    def _mounts(self, name: str, service: Json) -> None:
        taken: dict[str, str] = {}
        for index, entry in enumerate(service.get("tmpfs") or ()):
            self._mount(entry.split(":")[0], self._at(name, "tmpfs", index), taken)
        for index, entry in enumerate(service.get("volumes") or ()):
            if isinstance(entry, dict) and entry.get("target"):
                self._mount(entry["target"], self._at(name, "volumes", index), taken)

    def _mount(self, target: str, path: Path, taken: dict[str, str]) -> None:
        target = units.clean(target) if target else target
        if target in taken:
            self._tell_item(path, target, f"{target} is mounted already by {taken[target]}")
        taken[target] = dotted(path)

    def _watch(self, name: str, service: Json) -> None:
        for index, rule in enumerate((service.get("develop") or {}).get("watch") or ()):
            path = self._at(name, "develop", "watch", index)
            if rule.get("action") not in ("rebuild", "restart") and not rule.get("target"):
                self._tell(path, f"the action {rule.get('action')} needs a target")
            if not rule.get("path"):
                self._tell(path, "the path must not be empty")

    def _names(self) -> None:
        taken: dict[str, str] = {}
        for name in self.enabled:
            own = self.services[name].get("container_name")
            if own and own in taken:
                words = f'the container_name "{own}" is taken by service "{taken[own]}"'
                self._tell(self._at(name, "container_name"), words)
            elif own:
                taken[own] = name

    def _files(self) -> None:
        for kind, keys in (
            ("configs", ("file", "environment", "content")),
            ("secrets", ("file", "environment")),
        ):
            for name, resource in (self.model.get(kind) or {}).items():
                given = [k for k in keys if resource.get(k) is not None]
                if kind == "configs" and "environment" in given:
                    given = [k for k in given if k != "content" or self._written(kind, name)]
                if len(given) > 1:
                    words = f"{' and '.join(given)} exclude each other"
                    self._tell((kind, name, given[-1]), words, key=True)
                if given or resource.get("external") or "driver" in resource:
                    continue
                if not self.broken.touches((kind, name)):
                    words = f'{kind[:-1]} "{name}" needs one of {", ".join(keys)}'
                    self._tell((kind, name), words, key=True)

    def _written(self, kind: str, name: str) -> bool:
        path = (kind, name, "content")
        return any(d.has(path) for d in self.origins.documents)

    def _external(self) -> None:
        for name, volume in (self.model.get("volumes") or {}).items():
            for key in volume if volume.get("external") else ():
                if key not in ("name", "external") and not key.startswith("x-"):
                    words = f"an external volume takes no {key}"
                    self._tell(("volumes", name, key), words, key=True)

    def _cycles(self) -> None:
        done: set[str] = set()
        for name in self.enabled:
            self._follow(name, [], done)

    def _follow(self, name: str, trail: list[str], done: set[str]) -> None:
        if name in trail:
            cycle = trail[trail.index(name) :] + [name]
            words = f"a cycle of dependencies: {' -> '.join(cycle)}"
            self._tell(self._at(cycle[0], "depends_on"), words, key=True)
            return
        if name in done or name not in self.services:
            return
        for needed in self.services[name].get("depends_on") or {}:
            self._follow(needed, [*trail, name], done)
        done.add(name)
