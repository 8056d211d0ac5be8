"""``up`` in the foreground: the services' output, until they end or Ctrl-C."""

from __future__ import annotations

import queue
import signal
import threading
from typing import Any

from gemel.cli import output
from gemel.cli.app import App
from gemel.client import terminal
from gemel.client.project.attached import Follower
from gemel.client.project.logs import Printer, label_of
from gemel.client.project.members import Target
from gemel.client.project.up import STARTING, Session, Up, kill_all, stop_all
from gemel.compose.steps import Plan

#: Exit code of a command ended by Ctrl-C.
INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


def run_attached(app: App, work: Up, services: tuple[str, ...], given: dict[str, Any]) -> int:
    """Creates all, attaches, starts; the exit status of the whole."""
    plan = work.prepare()
    work.create(plan)
    members = _targets(work, plan)
    session = Session(_abort(given), given["exit_code_from"])
    quiet = _quiet(work, services, given, members)
    printer = Printer(
        [label_of(target) for target in members if target.service not in quiet],
        prefix=not given["no_log_prefix"],
        colour=output.colourful(1) and not given["no_color"],
    )
    follower = Follower(app.client, printer, quiet)
    shown = [label_of(target) for target in members if target.service not in quiet]
    if shown:
        output.say(f"Attaching to {', '.join(shown)}")
    return _Foreground(app, work, given, session, follower).run(plan, members)


def _abort(given: dict[str, Any]) -> str:
    if given["abort_on_container_failure"]:
        return "failure"
    return "exit" if given["abort_on_container_exit"] or given["exit_code_from"] else ""


def _targets(work: Up, plan: Plan) -> list[Target]:
    """The containers that the plan starts or leaves running."""
    found: dict[str, Target] = {}
    for container in plan.unchanged:
        found[container.name] = Target(
            container.id, container.name, container.service, container.index, container.state
        )
    ids = {name: id for executor in work.executors for name, id in executor.ids.items()}
    for step in plan.steps:
        if step.kind in STARTING and step.index:
            id = ids.get(step.name) or (step.container.id if step.container else "")
            found[step.name] = Target(id, step.name, step.service, step.index, "created")
    return sorted(found.values(), key=lambda target: (target.service, target.number))


def _quiet(
    work: Up, services: tuple[str, ...], given: dict[str, Any], members: list[Target]
) -> frozenset[str]:
    """Services whose output is not shown."""
    present = {target.service for target in members}
    shown = {name for name in present if work.project.service(name).attach}
    if given["attached"]:
        shown = {name for name in given["attached"] if work.project.service(name)}
    elif services and not given["attach_dependencies"]:
        shown &= set(services)
    return frozenset(present - (shown - set(given["unattached"])))


class _Foreground:
    """Waits in the main thread, so that signals are seen; the rest runs in threads."""

    def __init__(
        self, app: App, work: Up, given: dict[str, Any], session: Session, follower: Follower
    ) -> None:
        self.app = app
        self.work = work
        self.given = given
        self.session = session
        self.follower = follower

    def run(self, plan: Plan, members: list[Target]) -> int:
        for target in members:
            if target.running:
                self.follower.running(target)
        starter = threading.Thread(target=self._start, args=(plan,), daemon=True)
        with terminal.handled([signal.SIGINT, signal.SIGTERM], interrupt):
            try:
                return self._until_over(starter, members)
            except Interrupted:  # the second one, at whatever moment it comes
                return self._kill()

    def _until_over(self, starter: threading.Thread, members: list[Target]) -> int:
        try:
            starter.start()
            code = self._wait(members)
        except Interrupted:
            return self._stop()
        except Exception:
            self.follower.closing = True
            self.work.take_back()
            raise
        if any(target.running for target in self._running()):
            output.note("Aborting on container exit...")
            self._stop_all()
        return self._code_of(self.session.exit_from, code)

    def _kill(self) -> int:
        """What a second Ctrl-C does; one more changes nothing. Always 130."""
        with terminal.handled([signal.SIGINT, signal.SIGTERM], lambda number: None):
            output.note("Killing...")
            kill_all(self.app.client, self.work.project.name)
        return INTERRUPTED

    def _code_of(self, service: str, otherwise: int) -> int:
        """Exit code of the service that --exit-code-from names."""
        from gemel.client.project.members import of_project

        if not service:
            return otherwise
        members = of_project(self.app.client, self.work.project.name, one_offs=False)
        for target in members:
            if target.service == service:
                state = self.app.client.get(f"/containers/{target.id}/json")["State"]
                return int(state.get("ExitCode") or 0)
        return otherwise

    def _running(self) -> list[Target]:
        from gemel.client.project.members import of_project

        return [t for t in of_project(self.app.client, self.work.project.name) if t.running]

    def _start(self, plan: Plan) -> None:
        try:
            self.work.start(plan, self.follower.before_start)
        except Exception as problem:
            self.session.problem = problem
        finally:
            self.session.started.set()

    def _wait(self, members: list[Target]) -> int:
        """Until the session is over. Raises what the start failed with."""
        left = {target.id for target in members}
        if not left:
            self.session.started.wait(600)
        while left or not self.session.started.is_set():
            if self.session.problem is not None:
                raise self.session.problem
            try:
                ended = self.follower.ends.get(timeout=0.2)
            except queue.Empty:
                continue
            left.discard(ended.target.id)
            code = self.session.decide(ended.code, len(left))
            if code is not None and (left or self.session.started.is_set()):
                return code
        if self.session.problem is not None:
            raise self.session.problem
        return 0

    def _stop(self) -> int:
        """What Ctrl-C does. Always 130."""
        output.note("Gracefully stopping... (press Ctrl+C again to force)")
        self._stop_all()
        return INTERRUPTED

    def _stop_all(self) -> None:
        """Stops everything."""
        self.follower.closing = True
        style = self.work.style
        if style.mode in ("auto", "tty"):  # what is redrawn and the services' output do not mix
            style = style._replace(mode="plain")
        stop_all(
            self.app.client,
            self.work.project.name,
            style,
            timeout=self.given["timeout"],
            providers=self.app.providers(),
        )


def interrupt(_number: int) -> None:
    raise Interrupted
