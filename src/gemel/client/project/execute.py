"""Carries out a plan: each step through the API, as many at once as its graph allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from gemel.client.engine import Client
from gemel.client.project import images, placed, rolling
from gemel.client.project.display import Progress
from gemel.client.project.pool import run_graph
from gemel.client.project.prestart import PreStart
from gemel.client.project.waiting import NotReady, last_lines, wait_for
from gemel.client.pull import pull_image
from gemel.compose import requests
from gemel.compose.builds import build_request
from gemel.compose.project import Project
from gemel.compose.steps import Kind, Plan, Step
from gemel.errors import GemelError, NotFound, NotModified

#: Called with a container's id, its name and service, before it is started.
BeforeStart = Callable[[str, str, str], None]

#: Builds at once: each takes a processor and more.
_BUILDS = threading.BoundedSemaphore(2)


class Executor:
    """Runs plans of one project and remembers what it made, so that it can be taken back."""

    def __init__(
        self,
        client: Client,
        project: Project,
        shown: Progress,
        *,
        parallel: int = 16,
        image_ids: dict[str, str] | None = None,
        before_start: BeforeStart | None = None,
        quiet_pull: bool = False,
        build_output: Callable[[str], None] | None = None,
    ) -> None:
        self.client = client
        self.project = project
        self.shown = shown
        self.parallel = parallel
        self.image_ids = image_ids if image_ids is not None else {}
        self.before_start = before_start
        self.quiet_pull = quiet_pull
        self.build_output = build_output
        self.build_options: dict[str, Any] = {}
        self.provide: Callable[[Step, Progress], None] | None = None
        """Calls the program of a service that a provider runs."""
        self.made: list[tuple[str, str, str]] = []
        """What is new since this began: kind, name, id."""
        self.ids: dict[str, str] = {}
        """Container name → id of those made here."""
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self.pre_start = PreStart(self)
        self._remade: set[str] = set()
        self._work: dict[Kind, Callable[[Step], None]] = {
            Kind.CREATE_NETWORK: self._create_network,
            Kind.CREATE_VOLUME: self._create_volume,
            Kind.PULL: self._pull,
            Kind.BUILD: self._build,
            Kind.PROVIDE: self._provide,
            Kind.CREATE: self._create,
            Kind.RECREATE: self._recreate,
            Kind.START: self._start,
            Kind.WAIT: self._wait,
            Kind.RESTART: self._restart,
            Kind.UPDATE: self._update,
            Kind.STOP: self._stop,
            Kind.REMOVE: self._remove,
            Kind.REMOVE_NETWORK: self._remove_resource,
            Kind.REMOVE_VOLUME: self._remove_resource,
            Kind.REMOVE_IMAGE: self._remove_resource,
        }

    def run(self, plan: Plan, *, only: Collection[Kind] = (), skip: Collection[Kind] = ()) -> None:
        """Runs the plan's steps (only or but those kinds). Raises the first problem."""
        chosen = [s for s in plan.steps if (not only or s.kind in only) and s.kind not in skip]
        by_id = {step.id: step for step in chosen}

        def work(id: int) -> None:
            step = by_id[id]
            try:
                self._work[step.kind](step)
            except BaseException:
                if step.kind not in (Kind.WAIT, Kind.PROVIDE):  # they have told what it was
                    self.shown.failed(label(step))
                raise

        failed = run_graph({step.id: step.after for step in chosen}, work, self.parallel)
        for problem in failed.values():
            raise problem

    def container_id(self, step: Step) -> str:
        """Id of the container that a step is about."""
        if step.name in self.ids:
            return self.ids[step.name]
        return step.container.id if step.container is not None else step.name

    def _warn(self, texts: Sequence[str]) -> None:
        """Tells each warning of the engine once, however many containers it came with."""
        for text in texts:
            with self._lock:
                if text in self._warned:
                    continue
                self._warned.add(text)
            self.shown.note(f"warning: {text}")

    def _create_network(self, step: Step) -> None:
        self.shown.working(label(step), "Creating")
        body = msgspec.to_builtins(requests.network(self.project, step.key))
        made = self.client.post("/networks/create", body)
        self.made.append(("networks", step.name, made["Id"]))
        self._warn([made["Warning"]] if made.get("Warning") else [])
        self.shown.done(label(step), "Created")

    def _create_volume(self, step: Step) -> None:
        self.shown.working(label(step), "Creating")
        body = msgspec.to_builtins(requests.volume(self.project, step.key))
        self.client.post("/volumes/create", body)
        self.made.append(("volumes", step.name, step.name))
        self.shown.done(label(step), "Created")

    def _pull(self, step: Step) -> None:
        self.shown.working(label(step), "Pulling")
        pull_image(self.client, step.name, quiet=True)
        self.image_ids.update(images.ids(self.client, [step.name]))
        self.shown.done(label(step), "Pulled")

    def _build(self, step: Step) -> None:
        self.shown.working(label(step), "Building")
        service = self.project.service(step.service)
        request = build_request(self.project, service, **self.build_options)
        images.check_build(request)
        with _BUILDS:
            tell = self._build_line(step.service)
            images.run_build(self.client, request, tell, self.project.environment)
        self.image_ids.update(images.ids(self.client, [step.name]))
        self.shown.done(label(step), "Built")

    def _provide(self, step: Step) -> None:
        assert self.provide is not None
        self.provide(step, self.shown)

    def _build_line(self, service: str) -> Callable[[str], None] | None:
        tell = self.build_output
        return None if tell is None else lambda text: tell(f"{service} | {text}")

    def create(self, step: Step, name: str = "", **more: Any) -> str:
        """Creates a step's container under its own name or another; its id."""
        service = self.project.service(step.service)
        prepared = requests.container(
            self.project,
            service,
            step.index,
            secrets_dir=placed.folder(self.client.place, self.project.name),
            image_id=self.image_ids.get(self.project.image_of(service), ""),
            inherit=step.inherit,
            **more,
        )
        placed.write(prepared.files)
        try:
            made = self.client.post(
                "/containers/create",
                msgspec.to_builtins(prepared.request),
                name=name or prepared.name,
                platform=service.config.get("platform") or None,
                timeout=120,
            )
        except GemelError as problem:
            problem.brief = f"cannot create container {prepared.name}: {problem.brief}"
            raise
        self._warn(made.get("Warnings") or [])
        return str(made["Id"])

    def _create(self, step: Step) -> None:
        self.shown.working(label(step), "Creating")
        id = self.create(step)
        self.ids[step.name] = id
        self.made.append(("containers", step.name, id))
        self.shown.done(label(step), "Created")

    def _recreate(self, step: Step) -> None:
        """The new one is made before the old one goes: a wrong request costs nothing."""
        old = step.container
        assert old is not None
        self.shown.working(label(step), "Recreate")
        id = self.create(step, f"{old.id[:12]}_{step.name}")
        try:
            self._stop_container(old.id, step.timeout)
            self._remove_container(old.id)
        except BaseException:
            self._remove_container(id)
            raise
        self.client.post(f"/containers/{id}/rename", name=step.name)
        self.ids[step.name] = id
        self._remade.add(id)
        self.shown.done(label(step), "Recreated")

    def _start(self, step: Step) -> None:
        id = self.container_id(step)
        self.pre_start.run(step.service, id, remade=id in self._remade)
        self.shown.working(label(step), "Starting")
        if self.before_start is not None:
            self.before_start(id, step.name, step.service)
        try:
            self.client.post(f"/containers/{id}/start", timeout=180)
        except NotModified:
            pass
        except GemelError as problem:
            problem.brief = f"cannot start container {step.name}: {problem.brief}"
            raise
        self.shown.done(label(step), "Started")

    def _restart(self, step: Step) -> None:
        self.shown.working(label(step), "Restarting")
        limit = (60 if step.timeout is None else step.timeout) + 180
        path = f"/containers/{self.container_id(step)}/restart"
        self.client.call("POST", path, query={"t": step.timeout}, timeout=limit).read()
        self.shown.done(label(step), "Started")

    def _update(self, step: Step) -> None:
        rolling.Update(self, step, self.ids.__setitem__).run()

    def _wait(self, step: Step) -> None:
        """All containers of a service, one after the other: the slowest decides anyway."""
        for id, name in self._members(step.service):
            text = f"Container {name}"
            self.shown.working(text, "Waiting")
            try:
                state = wait_for(self.client, id, name, step.condition)
            except NotReady as problem:
                if step.optional:
                    self.shown.done(text, f"Skipped: {problem.brief}")
                    continue
                self.shown.failed(text, problem.brief.removeprefix(f"container {name} "))
                raise self._dependency(problem, id) from problem
            self.shown.done(text, state)

    def _members(self, service: str) -> list[tuple[str, str]]:
        filters = {
            "label": [
                f"{requests.PREFIX}project={self.project.name}",
                f"{requests.PREFIX}service={service}",
                f"{requests.PREFIX}oneoff=False",
            ]
        }
        found = self.client.get("/containers/json", all=True, filters=filters)
        return [(entry["Id"], entry["Names"][0].lstrip("/")) for entry in found]

    def _dependency(self, problem: NotReady, id: str) -> NotReady:
        output = last_lines(self.client, id)
        details = problem.details
        if output:
            details = f"{details}\nits last output:\n{output}".lstrip()
        return NotReady(f"dependency failed to start: {problem.brief}", details, problem.resolution)

    def _stop(self, step: Step) -> None:
        self.shown.working(label(step), "Stopping")
        if step.drain is not None:
            path = f"/gemel/containers/{self.container_id(step)}/drain"
            try:
                self.client.post(path, t=max(1, round(step.drain)), timeout=step.drain + 60)
            except NotFound:
                pass
        self._stop_container(self.container_id(step), step.timeout)
        self.shown.done(label(step), "Stopped")

    def _stop_container(self, id: str, timeout: int | None) -> None:
        limit = (60 if timeout is None else timeout) + 120
        try:
            self.client.post(f"/containers/{id}/stop", t=timeout, timeout=limit)
        except (NotModified, NotFound):
            pass

    def _remove(self, step: Step) -> None:
        self.shown.working(label(step), "Removing")
        self._remove_container(self.container_id(step), volumes=step.volumes)
        self.shown.done(label(step), "Removed")

    def _remove_container(self, id: str, *, volumes: bool = False) -> None:
        try:
            self.client.delete(f"/containers/{id}", force=True, v=volumes, timeout=120)
        except NotFound:
            pass

    def _remove_resource(self, step: Step) -> None:
        kind = {
            Kind.REMOVE_NETWORK: "networks",
            Kind.REMOVE_VOLUME: "volumes",
            Kind.REMOVE_IMAGE: "images",
        }[step.kind]
        self.shown.working(label(step), "Removing")
        try:
            self.client.delete(f"/{kind}/{step.name}", timeout=120)
        except NotFound:
            pass
        self.shown.done(label(step), "Removed")

    def roll_back(self) -> int:
        """Removes what this run has made, newest first; how many things. Never raises."""
        count = 0
        order = {"containers": 0, "networks": 1, "volumes": 2}
        with self._lock:
            made = sorted(self.made, key=lambda entry: order[entry[0]])
            self.made = []
        for kind, name, id in made:
            text = f"{kind[:-1].capitalize()} {name}"
            self.shown.working(text, "Removing")
            query = {"force": True, "v": True} if kind == "containers" else {}
            try:
                self.client.delete(f"/{kind}/{id}", timeout=120, **query)
            except NotFound:
                pass
            except GemelError as problem:
                self.shown.failed(text, f"left behind: {problem.brief}")
                continue
            self.shown.done(text, "Removed")
            count += 1
        return count


def label(step: Step) -> str:
    """What the display calls a step's object."""
    kinds = {
        Kind.CREATE_NETWORK: "Network",
        Kind.REMOVE_NETWORK: "Network",
        Kind.CREATE_VOLUME: "Volume",
        Kind.REMOVE_VOLUME: "Volume",
        Kind.PULL: "Image",
        Kind.BUILD: "Image",
        Kind.REMOVE_IMAGE: "Image",
        Kind.UPDATE: "Service",
        Kind.PROVIDE: "Service",
    }
    return f"{kinds.get(step.kind, 'Container')} {step.name}"
