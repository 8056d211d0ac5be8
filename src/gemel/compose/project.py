"""A loaded project: its services and resources in canonical form, with typed accessors.

``Service.config`` and the resources are Compose's canonical form, as ``docker
compose config --format json`` prints it (sizes as texts of bytes, durations as
Go prints them); the accessors give what others need as typed values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gemel.compose import units
from gemel.errors import InvalidInput, NotFound
from gemel.model.choice import AUTO
from gemel.model.instance import RuntimeName

Json = dict[str, Any]

RUNTIMES = {
    "": RuntimeName.CONTAINER,
    "container": RuntimeName.CONTAINER,
    "runc": RuntimeName.CONTAINER,
    "crun": RuntimeName.CONTAINER,
    "io.containerd.runc.v2": RuntimeName.CONTAINER,
    "microvm": RuntimeName.MICROVM,
    "kata": RuntimeName.MICROVM,
    "io.containerd.kata.v2": RuntimeName.MICROVM,
    # until the engine has chosen, it is looked at as a container
    AUTO: RuntimeName.CONTAINER,
}
"""Values of ``runtime:`` and what they mean to gemel."""


class Dependency(msgspec.Struct, frozen=True):
    """An entry of depends_on."""

    condition: str = "service_started"
    restart: bool = False
    required: bool = True


class Service(msgspec.Struct, frozen=True):
    """A service. config: its canonical attributes; not to be changed."""

    name: str
    config: Json

    @property
    def image(self) -> str:
        """The image as written, or empty if it is only built."""
        return self.config.get("image") or ""

    @property
    def build(self) -> Json | None:
        return self.config.get("build")

    @property
    def provider(self) -> Json | None:
        """How a program outside of the project runs it, if one does."""
        return self.config.get("provider")

    @property
    def runtime(self) -> RuntimeName:
        """Of a name that gemel does not know (lint refuses it): a container."""
        return RUNTIMES.get(self.config.get("runtime") or "", RuntimeName.CONTAINER)

    @property
    def scale(self) -> int:
        """How many instances."""
        if self.config.get("scale") is not None:
            return int(self.config["scale"])
        replicas = (self.config.get("deploy") or {}).get("replicas")
        return 1 if replicas is None else int(replicas)

    @property
    def depends_on(self) -> dict[str, Dependency]:
        found = {}
        for name, entry in (self.config.get("depends_on") or {}).items():
            found[name] = Dependency(
                entry.get("condition", "service_started"),
                bool(entry.get("restart", False)),
                bool(entry.get("required", True)),
            )
        return found

    @property
    def container_name(self) -> str:
        return self.config.get("container_name") or ""

    @property
    def profiles(self) -> tuple[str, ...]:
        return tuple(self.config.get("profiles") or ())

    @property
    def networks(self) -> dict[str, Json]:
        """Keys of networks, by priority, then name, with how they are joined."""
        joined = {k: v or {} for k, v in (self.config.get("networks") or {}).items()}
        order = sorted(joined, key=lambda k: (-joined[k].get("priority", 0), k))
        return {key: joined[key] for key in order}

    @property
    def network_mode(self) -> str:
        return self.config.get("network_mode") or ""

    @property
    def environment(self) -> dict[str, str | None]:
        return self.config.get("environment") or {}

    @property
    def labels(self) -> dict[str, str]:
        return self.config.get("labels") or {}

    @property
    def ports(self) -> list[Json]:
        return self.config.get("ports") or []

    @property
    def volumes(self) -> list[Json]:
        return self.config.get("volumes") or []

    @property
    def attach(self) -> bool:
        """Whether an attached ``up`` shows its output."""
        return self.config.get("attach") is not False

    @property
    def tty(self) -> bool:
        return bool(self.config.get("tty"))

    @property
    def stop_grace_period(self) -> float | None:
        """Seconds, or None for the default of 10."""
        text = self.config.get("stop_grace_period")
        return None if text is None else units.duration(text) / 1e9

    @property
    def pull_policy(self) -> str:
        return self.config.get("pull_policy") or ""

    @property
    def gemel(self) -> Json:
        """The service's ``x-gemel``."""
        found = self.config.get("x-gemel")
        return found if isinstance(found, dict) else {}

    def needs(self) -> list[str]:
        """The services this one refers to in any way."""
        return list(self.config.get("depends_on") or {})


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A whole project. Keys of the dicts are the names in the file."""

    name: str
    working_dir: str
    files: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    services: dict[str, Service] = {}
    disabled: dict[str, Service] = {}
    """Services that no active profile enables."""
    networks: dict[str, Json] = {}
    volumes: dict[str, Json] = {}
    configs: dict[str, Json] = {}
    secrets: dict[str, Json] = {}
    models: dict[str, Json] = {}
    extensions: Json = {}
    """``x-…`` at the top of the file."""
    profiles: tuple[str, ...] = ()
    marks: dict[str, str] = {}
    """``services.NAME`` with a provider, ``models.NAME`` → where it stands: file:line:column."""

    def service(self, name: str) -> Service:
        """Raises NotFound with the nearest known name."""
        found = self.services.get(name) or self.disabled.get(name)
        if found is None:
            from gemel.compose.problems import nearest

            known = [*self.services, *self.disabled]
            raise NotFound(
                f"no such service: {name}{nearest(name, known)}",
                f"services of {self.name}: {', '.join(sorted(known)) or 'none'}",
            )
        return found

    def image_of(self, service: Service) -> str:
        """The image a service runs: as written, or the name its build is tagged with."""
        return service.image or f"{self.name}-{service.name}"

    def network_name(self, key: str) -> str:
        """The name in the engine of a network of the file."""
        name = (self.networks.get(key) or {}).get("name")
        return str(name or f"{self.name}_{key}")

    def volume_name(self, key: str) -> str:
        """The name in the engine of a volume of the file."""
        name = (self.volumes.get(key) or {}).get("name")
        return str(name or f"{self.name}_{key}")

    def container_name(self, service: Service, index: int) -> str:
        return service.container_name or f"{self.name}-{service.name}-{index}"

    def with_dependencies(self, names: Iterable[str]) -> list[str]:
        """``names`` and all they depend on, dependencies first. Raises NotFound."""
        found: dict[str, None] = {}
        for name in names:
            self._visit(name, found, set())
        return list(found)

    def _visit(self, name: str, found: dict[str, None], above: set[str]) -> None:
        if name in found or name in above:
            return
        for needed, dependency in self.service(name).depends_on.items():
            there = needed in self.services or (dependency.required and needed in self.disabled)
            if there:
                self._visit(needed, found, above | {name})
        found[name] = None

    def dependents(self, names: Iterable[str]) -> list[str]:
        """The enabled services that depend on one of ``names``, directly or not."""
        found: dict[str, None] = {}
        left = list(names)
        while left:
            current = left.pop()
            for service in self.services.values():
                if current in service.depends_on and service.name not in found:
                    found[service.name] = None
                    left.append(service.name)
        return list(found)

    def enabling(self, names: Iterable[str]) -> Project:
        """The same with ``names`` enabled, their profiles' services stay as they are."""
        wanted = self.with_dependencies([n for n in names if n])
        more = {n: self.disabled[n] for n in wanted if n in self.disabled}
        if not more:
            return self
        return msgspec.structs.replace(
            self,
            services=dict(sorted({**self.services, **more}.items())),
            disabled={k: v for k, v in self.disabled.items() if k not in more},
        )

    def with_runtimes(self, chosen: dict[str, str]) -> Project:
        """The same with other runtimes for some services. Raises NotFound, InvalidInput."""
        services = dict(self.services)
        disabled = dict(self.disabled)
        for name, runtime in chosen.items():
            check_runtime(runtime)
            service = self.service(name)
            changed = Service(name, {**service.config, "runtime": runtime})
            (services if name in services else disabled)[name] = changed
        return msgspec.structs.replace(self, services=services, disabled=disabled)

    def with_scale(self, counts: dict[str, int]) -> Project:
        """The same with other numbers of instances (``--scale``). Raises NotFound, InvalidInput."""
        services = dict(self.services)
        for name, count in counts.items():
            service = self.service(name)
            if count < 0:
                raise InvalidInput(f"scale of {name} must not be below 0")
            if service.provider is not None:
                raise InvalidInput(
                    f"{name} cannot be scaled: a provider runs it",
                    resolution="its provider.options may say how large it is",
                )
            if count > 1 and service.container_name:
                raise InvalidInput(
                    f"{name} has a container_name and cannot be scaled to {count}",
                    "A container's name must be unique",
                    "Remove container_name",
                )
            deploy = service.config.get("deploy")
            config = {**service.config, "scale": count}
            if deploy:
                config["deploy"] = {**deploy, "replicas": count}
            services[name] = Service(name, config)
        return msgspec.structs.replace(self, services=services)

    def __iter__(self) -> Iterator[Service]:
        return iter(self.services.values())


def check_runtime(value: str) -> RuntimeName:
    """The runtime a text stands for. Raises InvalidInput."""
    words = runtime_words(value)
    if words:
        raise InvalidInput(words, "", "Use container, microvm or auto")
    return RUNTIMES[value]


def runtime_words(value: str) -> str:
    """What is wrong with a value of ``runtime``, or nothing."""
    if value in RUNTIMES:
        return ""
    from gemel.compose.problems import nearest

    known = [k for k in RUNTIMES if k]
    return f'unknown runtime "{value}"{nearest(value, known)}; known are {", ".join(known)}'
