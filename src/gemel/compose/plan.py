"""What to do so that a project runs as its file says: a graph of steps with reasons."""

from __future__ import annotations

from typing import Any

import msgspec

from gemel.compose import extension, provider
from gemel.compose.confighash import config_hash, network_hash
from gemel.compose.mounts import changed_file
from gemel.compose.observed import Container, Observed
from gemel.compose.planimages import image_volumes
from gemel.compose.planimages import plan_images as plan_images
from gemel.compose.project import Project, Service
from gemel.compose.requests import PREFIX, Inherited
from gemel.compose.rolling import (
    START_FIRST,
    STOP_FIRST,
    Rolling,
    no_roll,
    no_start_first,
    rolling,
)
from gemel.compose.sharing import refers, shares
from gemel.compose.steps import Change, Draft, Kind, Plan
from gemel.compose.upoptions import ALWAYS as ALWAYS
from gemel.compose.upoptions import MISSING as MISSING
from gemel.compose.upoptions import NEVER as NEVER
from gemel.compose.upoptions import UpOptions as UpOptions
from gemel.compose.upoptions import targets as targets
from gemel.errors import Conflict, NotFound

Json = dict[str, Any]


def plan_up(project: Project, observed: Observed, options: UpOptions) -> Plan:
    """Networks, volumes and containers to make, change, start and remove.

    Raises NotFound for an external network or volume that is not there, and for
    an unknown service; Conflict if options contradict each other.
    """
    if options.force_recreate and options.no_recreate:
        raise Conflict("--force-recreate and --no-recreate exclude each other")
    return _Up(project, observed, options).plan()


class _Up:
    def __init__(self, project: Project, observed: Observed, options: UpOptions) -> None:
        self.project = project
        self.observed = observed
        self.options = options
        self.draft = Draft()
        self.names = targets(project, options)
        self.asked = set(options.services or project.services)
        self.networks: dict[str, int] = {}
        self.volumes: dict[str, int] = {}
        self.made: dict[str, set[int]] = {}
        """Service → steps after which its containers exist."""
        self.started: dict[str, set[int]] = {}
        """Service → steps after which its containers run."""
        self.recreated: set[str] = set()
        self.gone: dict[str, Container] = {}
        """Containers that are removed before their services are looked at, by id."""
        self.changes: dict[str, list[Change]] = {}
        """Service → containers that are replaced one by one."""
        self.waits: dict[tuple[str, str, bool], int] = {}

    def plan(self) -> Plan:
        used_networks, used_volumes = self._used()
        for key in used_networks:
            self._network(key)
        for key in used_volumes:
            self._volume(key)
        for name in self.names:
            service = self.project.service(name)
            if service.provider is None:
                self._service(service)
            elif not self.options.start:
                self._provide(service)
        if self.options.start:
            for name in self.names:
                self._start(self.project.service(name))
        self._orphans()
        return self.draft.plan()

    def _used(self) -> tuple[list[str], list[str]]:
        """Keys of networks and volumes that the services use, in the file's order."""
        networks, volumes = set(), set()
        for name in self.names:
            service = self.project.service(name)
            networks |= set(service.networks)
            volumes |= {v.get("source") for v in service.volumes if v.get("type") == "volume"}
        return (
            [k for k in self.project.networks if k in networks],
            [k for k in self.project.volumes if k in volumes],
        )

    def _network(self, key: str) -> None:
        name = self.project.network_name(key)
        config = self.project.networks[key]
        labels = self.observed.networks.get(name)
        if labels is not None:
            made_from = labels.get(PREFIX + "config-hash")
            ours = labels.get(PREFIX + "project") == self.project.name
            if ours and made_from and made_from != network_hash(config):
                self._network_anew(key, name)
            return
        if config.get("external"):
            if name in ("host", "none", "bridge"):
                return
            raise NotFound(
                f"network {name} declared as external, but could not be found",
                "",
                f"Create it: gemel network create {name}",
            )
        self.networks[key] = self.draft.add(
            Kind.CREATE_NETWORK, name, "it is not there", set(), key=key
        )

    def _network_anew(self, key: str, name: str) -> None:
        """Removes a network that the file changed, with the containers on it, and makes it."""
        reason = "its configuration changed"
        gone: set[int] = set()
        for container in self.observed.containers:
            if name in container.networks and container.id not in self.gone:
                self.gone[container.id] = container
                gone.add(self._remove(container, f"the network {name} changed"))
        removed = self.draft.add(Kind.REMOVE_NETWORK, name, reason, gone, key=key)
        self.networks[key] = self.draft.add(Kind.CREATE_NETWORK, name, reason, {removed}, key=key)

    def _volume(self, key: str) -> None:
        name = self.project.volume_name(key)
        config = self.project.volumes[key]
        labels = self.observed.volumes.get(name)
        if labels is not None:
            owner = labels.get(PREFIX + "project")
            if not config.get("external") and owner != self.project.name:
                whose = f'for project "{owner}"' if owner else "outside of any project"
                self.draft.warnings.append(
                    f'volume "{name}" already exists but was created {whose}.'
                    " Use `external: true` to use an existing volume"
                )
            return
        if config.get("external"):
            raise NotFound(
                f'external volume "{name}" not found',
                "",
                f"Create it: gemel volume create {name}",
            )
        self.volumes[key] = self.draft.add(
            Kind.CREATE_VOLUME, name, "it is not there", set(), key=key
        )

    def _service(self, service: Service) -> None:
        before = self._before(service)
        made = self.made.setdefault(service.name, set())
        before_all = self.observed.of(service.name)
        there = [c for c in before_all if c.id not in self.gone]
        old = {c.index: c for c in before_all if c.id in self.gone}
        keep, surplus = there[: service.scale], there[service.scale :]
        for container in reversed(surplus):
            drain = self._drain(service) if keep else None
            self._remove(container, f"scaled down to {service.scale}", drain=drain)
        rolls = self._rolls(service)
        for container in keep:
            reason = self._differs(service, container)
            if reason and rolls and container.state == "running":
                self.recreated.add(service.name)
                self.changes.setdefault(service.name, []).append(
                    Change(
                        container=container,
                        name=self.project.container_name(service, container.index),
                        reason=reason,
                        inherit=self._inherit(container),
                    )
                )
            elif reason:
                self.recreated.add(service.name)
                made.add(
                    self.draft.add(
                        Kind.RECREATE,
                        self.project.container_name(service, container.index),
                        reason,
                        before,
                        service=service.name,
                        index=container.index,
                        container=container,
                        timeout=self.options.timeout,
                        inherit=self._inherit(container),
                    )
                )
        taken = {c.index for c in keep}
        free = (n for n in range(1, service.scale + len(there) + 1) if n not in taken)
        for _ in range(service.scale - len(keep)):
            index = next(free)
            made.add(
                self.draft.add(
                    Kind.CREATE,
                    self.project.container_name(service, index),
                    "its network is made anew" if index in old else "it is not there",
                    set(before),
                    service=service.name,
                    index=index,
                    inherit=self._inherit(old[index]) if index in old else (),
                )
            )

    def _provide(self, service: Service) -> None:
        """The call of the program that runs a service, after what that depends on."""
        if service.name in self.options.provided:
            return
        after = self._ready(service) if self.options.start else set()
        for other in service.depends_on:
            after |= self.made.get(other, set())
        step = self.draft.add(
            Kind.PROVIDE, service.name, f"provider {provider.kind(service)}", after,
            service=service.name,
        )  # fmt: skip
        self.started[service.name] = self.made[service.name] = {step}

    def _before(self, service: Service) -> set[int]:
        """Steps that must be done before a container of the service can be made."""
        before = {self.networks[k] for k in service.networks if k in self.networks}
        for volume in service.volumes:
            if volume.get("type") == "volume" and volume.get("source") in self.volumes:
                before.add(self.volumes[volume["source"]])
        for other in refers(service):
            before |= self.made.get(other, set())
        return before

    def _inherit(self, container: Container) -> tuple[Inherited, ...]:
        if self.options.renew_anon_volumes:
            return ()
        return tuple(Inherited(t, v) for t, v in sorted(container.anonymous.items()))

    def _differs(self, service: Service, container: Container) -> str:
        """Why a container must be made anew, or nothing."""
        options = self.options
        shared = [o for o in shares(service) if o in self.recreated]
        if options.no_recreate:
            return ""
        if options.force_recreate and service.name in self.asked:
            return "--force-recreate"
        if options.always_recreate_deps and service.name not in self.asked:
            return "--always-recreate-deps"
        if container.state in ("dead", "removing"):
            return f"it is {container.state}"
        if container.config_hash != config_hash(service) and not self._made_by_compose(
            service, container
        ):
            return "its configuration changed"
        image_id = self.observed.images.get(self.project.image_of(service))
        if image_id and container.image_id and container.image_id != image_id:
            return "its image changed"
        if shared:
            return f"it shares what {shared[0]} has, which is made anew"
        return self._elsewhere(service, container)

    def _made_by_compose(self, service: Service, container: Container) -> bool:
        """Whether Docker Compose has made it: its hash has ids where the file names services."""
        if not shares(service):
            return False
        config = dict(service.config)
        for key in ("network_mode", "ipc", "pid"):
            value = str(config.get(key) or "")
            if value.startswith("service:"):
                first = self.observed.of(value.removeprefix("service:"))[:1]
                config[key] = f"container:{first[0].id}" if first else value
        sources = []
        for source in config.get("volumes_from") or ():
            first = self.observed.of(source.partition(":")[0])[:1]
            sources.append(first[0].id if first else source.removeprefix("container:"))
        if sources:
            config["volumes_from"] = sources
        return container.config_hash == config_hash(Service(service.name, config))

    def _elsewhere(self, service: Service, container: Container) -> str:
        """Networks and volumes that it has not, though its own configuration is the same."""
        for key in service.networks if not service.network_mode else ():
            name = self.project.network_name(key)
            if key in self.networks:
                return f"the network {name} is made anew"
            if container.networks and name not in container.networks:
                return f"it is not on the network {name}"
        changed = changed_file(self.project, service, container.mounts)
        if changed:
            return f"its {changed} changed"
        for volume in service.volumes:
            if volume.get("type") == "volume" and volume.get("source"):
                name = self.project.volume_name(volume["source"])
                if container.mounts.get(volume["target"], name) != name:
                    return f"its volume is not {name}"
        for image, target in image_volumes(service):
            now = self.observed.images.get(image)
            if now and container.mounts.get(target, now) != now:
                return f"the image {image} in it changed"
        return ""

    def _rolling(self, service: Service) -> Rolling | None:
        options = self.options
        asked = options.update and service.name in self.asked
        return rolling(service, asked=asked, order=options.order if asked else "")

    def _rolls(self, service: Service) -> bool:
        """Whether its running containers are replaced one by one."""
        if not (self.options.start and self.options.roll) or self._rolling(service) is None:
            return False
        reason = no_roll(self.project, service)
        if reason:
            self.draft.warnings.append(f"{service.name} is made anew at once: {reason}")
        return not reason

    def _drain(self, service: Service) -> float:
        seconds = extension.drain(service)
        return 0.0 if seconds is None else seconds

    def _update(self, service: Service, after: set[int]) -> int:
        """The step that replaces containers one by one."""
        how = self._rolling(service)
        assert how is not None
        reason = no_start_first(service)
        if how.order == START_FIRST and reason:
            self.draft.warnings.append(
                f"{service.name}: the old instance is stopped before the new one starts: {reason}"
            )
            how = msgspec.structs.replace(how, order=STOP_FIRST)
        changes = self.changes[service.name]
        return self.draft.add(
            Kind.UPDATE,
            service.name,
            f"{changes[0].reason}, {how.order}",
            after,
            service=service.name,
            changes=tuple(changes),
            rolling=how,
            timeout=self.options.timeout,
        )

    def _remove(
        self,
        container: Container,
        reason: str,
        volumes: bool = False,
        drain: float | None = None,
    ) -> int:
        after: set[int] = set()
        if container.running:
            after.add(
                self.draft.add(
                    Kind.STOP,
                    container.name,
                    reason,
                    set(),
                    service=container.service,
                    index=container.index,
                    container=container,
                    timeout=self.options.timeout,
                    drain=drain,
                )
            )
        return self.draft.add(
            Kind.REMOVE,
            container.name,
            reason,
            after,
            service=container.service,
            index=container.index,
            container=container,
            volumes=volumes,
        )

    def _start(self, service: Service) -> None:
        """Starts of a service's containers, after what it depends on."""
        if service.provider is not None:
            return self._provide(service)
        started = self.started.setdefault(service.name, set())
        made = [self.draft.steps[id] for id in sorted(self.made.get(service.name, ()))]
        remade = {s.index for s in made}
        changed = {change.container.id for change in self.changes.get(service.name, ())}
        stopped, restarting = [], []
        for container in self.observed.of(service.name)[: service.scale]:
            if container.index in remade or container.id in changed | self.gone.keys():
                continue
            if not container.running:
                stopped.append(container)
            elif self._must_restart(service):
                restarting.append(container)
            else:
                self.draft.unchanged.append(container)
        if not (made or stopped or restarting or changed):
            return
        ready = self._ready(service)
        if changed:
            started.add(self._update(service, ready | self._before(service)))
        for step in made:
            started.add(self._start_one(service, step.name, step.index, ready | {step.id}))
        for container in stopped:
            name, index = container.name, container.index
            started.add(self._start_one(service, name, index, ready, container))
        for container in restarting:
            reason = "a service it depends on was made anew"
            step_id = self.draft.add(
                Kind.RESTART,
                container.name,
                reason,
                set(ready),
                service=service.name,
                index=container.index,
                container=container,
                timeout=self.options.timeout,
            )
            started.add(step_id)

    def _start_one(
        self,
        service: Service,
        name: str,
        index: int,
        after: set[int],
        container: Container | None = None,
    ) -> int:
        reason = f"it is {container.state}" if container else "it is new"
        return self.draft.add(
            Kind.START,
            name,
            reason,
            set(after),
            service=service.name,
            index=index,
            container=container,
        )

    def _must_restart(self, service: Service) -> bool:
        return any(d.restart and n in self.recreated for n, d in service.depends_on.items())

    def _ready(self, service: Service) -> set[int]:
        """Steps after which all that a service depends on is as it wants it."""
        ready: set[int] = set()
        for name, dependency in service.depends_on.items():
            if name not in self.names:
                continue
            if dependency.condition == "service_started" or self.project.service(name).provider:
                ready |= self.started.get(name, set())
            else:
                ready.add(self._wait(name, dependency.condition, not dependency.required))
        return ready

    def _wait(self, name: str, condition: str, optional: bool) -> int:
        key = (name, condition, optional)
        if key not in self.waits:
            self.waits[key] = self.draft.add(
                Kind.WAIT,
                name,
                f"others wait for {condition}",
                set(self.started.get(name, set())),
                service=name,
                condition=condition,
                optional=optional,
            )
        return self.waits[key]

    def _orphans(self) -> None:
        found = orphans(self.project, self.observed)
        if not found:
            return
        if self.options.remove_orphans:
            for container in found:
                self._remove(container, "its service is not in the file")
            return
        names = ", ".join(c.name for c in found)
        self.draft.warnings.append(
            f"Found orphan containers ([{names}]) for this project. If you removed or renamed"
            " this service in your compose file, you can run this command with the"
            " --remove-orphans flag to clean it up."
        )


def orphans(project: Project, observed: Observed) -> list[Container]:
    """Containers of the project whose service the file does not have, or a provider runs."""
    every = [*project.services.values(), *project.disabled.values()]
    known = {service.name for service in every if service.provider is None}
    return [
        c
        for c in observed.containers
        if (c.service not in known and not c.oneoff) or (c.oneoff and not c.running)
    ]
