"""up: from what is there to what the file says; taken back if it fails half-way."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from gemel.client.engine import Client
from gemel.client.project.display import Progress
from gemel.client.project.execute import BeforeStart, Executor
from gemel.client.project.members import Target, needs, of_project
from gemel.client.project.pool import each, run_graph
from gemel.client.project.source import look
from gemel.client.project.waiting import NotReady, last_lines, wait_for
from gemel.compose.observed import Observed
from gemel.compose.plan import UpOptions, plan_images, plan_up, targets
from gemel.compose.planimages import further_images
from gemel.compose.project import Project
from gemel.compose.steps import Kind, Plan, Step
from gemel.errors import CommandNotFound, CommandNotRunnable, Failed, NotFound, NotModified

if TYPE_CHECKING:
    from gemel.client.project.outside import Outside
    from gemel.client.project.providers import Providers

#: Steps that begin once everything exists.
STARTING = (Kind.START, Kind.WAIT, Kind.RESTART, Kind.UPDATE)


class Style(NamedTuple):
    """How progress is shown, and how much is done at once."""

    mode: str = "auto"
    colour: bool = True
    parallel: int = 16
    quiet_build: bool = False


class Up:
    """One ``up`` (or ``create``) of a project."""

    def __init__(
        self,
        client: Client,
        project: Project,
        options: UpOptions,
        style: Style,
        *,
        keep: bool = False,
        build_options: dict[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.project = project
        self.options = options
        self.style = style
        self.keep = keep
        self.build_options = build_options or {}
        self.image_ids: dict[str, str] = {}
        self.executors: list[Executor] = []
        self.provide: Callable[[Step, Progress], None] | None = None
        """Calls the program of a service that a provider runs."""

    def progress(self, title: str, *, quiet: bool = False) -> Progress:
        """A display of progress in this command's style."""
        mode = "quiet" if quiet else self.style.mode
        return Progress(title, mode, colour=self.style.colour)

    def _executor(self, shown: Progress, before_start: BeforeStart | None = None) -> Executor:
        made = Executor(
            self.client,
            self.project,
            shown,
            parallel=self.style.parallel,
            image_ids=self.image_ids,
            before_start=before_start,
            build_output=None if self.style.quiet_build else shown.detail,
        )
        made.build_options = self.build_options
        made.provide = self.provide
        self.executors.append(made)
        return made

    def images(self) -> tuple[Observed, tuple[str, ...]]:
        """Builds and pulls; what is there then, and the plan's warnings."""
        observed = self.look()
        plan = plan_images(self.project, observed, self.options)
        if plan.steps:
            titles = {Kind.BUILD: "Building", Kind.PULL: "Pulling"}
            kinds = {step.kind for step in plan.steps}
            title = titles[next(iter(kinds))] if len(kinds) == 1 else "Running"
            with self.progress(title) as shown:
                self._executor(shown).run(plan)
            observed = msgspec.structs.replace(observed, images=dict(self.image_ids))
        return observed, plan.warnings

    def prepare(self) -> Plan:
        """Sees to the images and asks programs outside; the plan of what is to be done then.

        The project has then what those programs say, and the options that they were asked.
        """
        observed, warnings = self.images()
        if outside := self._outside():
            observed, more = outside.run(observed)
            warnings += tuple(more)
        plan = plan_up(self.project, observed, self.options)
        for warning in warnings + plan.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return plan

    def dry_run(self) -> list[str]:
        """What would be done, a line for each step, and nothing is."""
        observed = self.look()
        outside = self._outside()
        models = outside.would() if outside else []
        steps = list(plan_images(self.project, observed, self.options).steps)
        count = len(steps)
        steps += plan_up(self.project, observed, self.options).steps
        lines = [f"{step.kind}: {step.name} ({step.reason})" for step in steps]
        return [*lines[:count], *models, *lines[count:]]

    def _outside(self) -> Outside | None:
        """What sees to providers and models, if the project has any."""
        if not self.project.models and all(one.provider is None for one in self.project):
            return None
        from gemel.client.project.outside import Outside

        outside = Outside(self)
        self.provide = outside.provide
        return outside

    def look(self) -> Observed:
        """What is there of the project now."""
        names = targets(self.project, self.options)
        services = [self.project.service(name) for name in names]
        services = [service for service in services if service.provider is None]
        refs = {self.project.image_of(service) for service in services}
        refs |= {image for service in services for image in further_images(service)}
        observed = look(self.client, self.project.name, refs, self.style.parallel)
        self.image_ids.update(observed.images)
        return observed

    def detached(self, plan: Plan) -> None:
        """Does it all. Raises the first problem, after taking back what was made."""
        if not plan.steps and not plan.unchanged:
            return
        with self.progress("Running") as shown:
            for container in plan.unchanged:
                shown.done(f"Container {container.name}", "Running")
            executor = self._executor(shown)
            try:
                executor.run(plan)
            except Exception as problem:
                self._explain(problem, executor)
                self._take_back(shown)
                raise _plain(problem) from problem

    def create(self, plan: Plan) -> None:
        """All but the starts, with progress."""
        steps = [step for step in plan.steps if step.kind not in STARTING]
        if not steps:
            return
        with self.progress("Running") as shown:
            for container in plan.unchanged:
                shown.done(f"Container {container.name}", "Running")
            try:
                self._executor(shown).run(plan, skip=STARTING)
            except Exception:
                self._take_back(shown)
                raise

    def resources(self, plan: Plan) -> None:
        """Networks and volumes only."""
        kinds = (Kind.CREATE_NETWORK, Kind.CREATE_VOLUME)
        if plan.of(*kinds):
            with self.progress("Running") as shown:
                self._executor(shown).run(plan, only=kinds)

    def start(self, plan: Plan, before_start: Callable[[Target], None]) -> None:
        """The starts, without progress: the output of the services is shown instead."""
        ids = {name: id for executor in self.executors for name, id in executor.ids.items()}
        numbers = {step.name: step.index for step in plan.steps}

        def hook(id: str, name: str, service: str) -> None:
            tty = self.project.service(service).tty
            before_start(
                Target(id=id, name=name, service=service, number=numbers.get(name, 0), tty=tty)
            )

        with self.progress("Running", quiet=True) as shown:
            executor = self._executor(shown, hook)
            executor.ids.update(ids)
            try:
                executor.run(plan, only=STARTING)
            except Exception as problem:
                self._explain(problem, executor)
                raise _plain(problem) from problem

    def _explain(self, problem: Exception, executor: Executor) -> None:
        """Adds the end of its output to the error of a container that is not as it should be."""
        if isinstance(problem, NotReady) and not self.keep and executor.made:
            problem.resolution = "`gemel up --keep` leaves it there for a look (gemel logs)"
        if isinstance(problem, NotReady) and "its last output" not in problem.details:
            name = problem.brief.partition("container ")[2].partition(" ")[0]
            output = last_lines(self.client, executor.ids.get(name, name)) if name else ""
            if output:
                problem.details = f"{problem.details}\nits last output:\n{output}".lstrip()

    def _take_back(self, shown: Progress) -> None:
        if self.keep:
            return
        # those that only changed or started what was there before have made nothing
        count = sum(executor.roll_back() for executor in reversed(self.executors))
        if count:
            shown.note("what this command had made is removed again (--keep leaves it)")

    def take_back(self) -> None:
        """Removes what was made, with progress."""
        with self.progress("Running") as shown:
            self._take_back(shown)

    def wait_ready(self, timeout: float | None) -> None:
        """``--wait``: until every container runs and is healthy. Raises NotReady."""
        names = set(targets(self.project, self.options))
        members = [
            target
            for target in of_project(self.client, self.project.name, one_offs=False)
            if target.service in names
        ]
        with self.progress("Running") as shown:

            def work(target: Target) -> None:
                text = f"Container {target.name}"
                shown.working(text, "Waiting")
                try:
                    state = wait_for(
                        self.client, target.id, target.name, "running_or_healthy", timeout
                    )
                except NotReady as problem:
                    shown.failed(text)
                    self._explain(problem, self.executors[-1])
                    raise
                shown.done(text, state)

            try:
                for problem in each(members, work, max(len(members), 1)).values():
                    raise problem
            except Exception:
                self._take_back(shown)
                raise


def _plain(problem: Exception) -> Exception:
    """As Compose has it, ``up`` ends with 1 whatever one container's start failed with."""
    if isinstance(problem, CommandNotFound | CommandNotRunnable):
        return Failed(problem.brief, problem.details, problem.resolution)
    return problem


class Session:
    """The attached part: output, ends, Ctrl-C. Signals are the caller's to catch."""

    def __init__(self, abort: str = "", exit_from: str = "") -> None:
        self.abort = abort
        """Empty: go on until all have ended; ``exit``: until one ends; ``failure``: one fails."""
        self.exit_from = exit_from
        self.problem: Exception | None = None
        self.started = threading.Event()

    def decide(self, code: int, left: int) -> int | None:
        """The exit code if this end is the last thing to wait for, None to go on."""
        if self.abort == "exit" or (self.abort == "failure" and code):
            return code
        return 0 if left == 0 else None


def stop_all(
    client: Client,
    project: str,
    style: Style,
    *,
    timeout: int | None = None,
    services: Collection[str] = (),
    providers: Providers | None = None,
) -> None:
    """Stops all of a project's, those first that others do not need.

    providers: call the programs that run services of the project, if it has such.
    """
    members = [t for t in of_project(client, project) if t.running]
    members += providers.targets() if providers else []
    members = [t for t in members if not services or t.service in services]
    if not members:
        return
    with Progress("Stopping", style.mode, colour=style.colour) as shown:

        def work(target: Target) -> None:
            if not target.id and providers:
                return providers.stop(target.service, shown)
            text = target.title
            shown.working(text, "Stopping")
            limit = (60 if timeout is None else timeout) + 120
            try:
                client.post(f"/containers/{target.id}/stop", t=timeout, timeout=limit)
            except (NotFound, NotModified):
                pass
            shown.done(text, "Stopped")

        with providers.talks.guarded() if providers else contextlib.nullcontext():
            failed = run_graph(needs(members, reverse=True), work, style.parallel)
        for problem in failed.values():
            raise problem


def kill_all(client: Client, project: str) -> None:
    """Kills all containers of a project at once. Never raises for one that has ended."""
    members = [t for t in of_project(client, project) if t.running]

    def work(target: Target) -> None:
        client.call("POST", f"/containers/{target.id}/kill", timeout=90).read()

    each(members, work)
