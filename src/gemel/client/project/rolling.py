"""Replaces the containers of a service one after the other (``deploy.update_config``).

One that does not become ready is taken back, and the old one goes on in its place. The old ones
are kept, stopped, until the whole update is over: a rollback starts them again as they were.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from gemel.client.engine import Client
from gemel.client.project.display import Progress
from gemel.client.project.pool import each
from gemel.client.project.prestart import PreStart
from gemel.client.project.waiting import last_lines
from gemel.compose.rolling import CONTINUE, ROLLBACK, START_FIRST, STOP_FIRST, Rolling
from gemel.compose.steps import Change, Step
from gemel.errors import Failed, GemelError, NotFound, NotModified

#: Seconds in which a new instance must be ready; a health check that fails ends it before.
READY = 300


class Maker(Protocol):
    """What of the executor is needed here."""

    client: Client
    shown: Progress
    pre_start: PreStart

    def create(self, step: Step, name: str = "") -> str: ...


class Done(NamedTuple):
    """A container that was replaced."""

    change: Change
    new: str


class Update:
    """One update of one service. ids: told the new container of each name."""

    def __init__(self, maker: Maker, step: Step, told: Callable[[str, str], None]) -> None:
        assert step.rolling is not None
        self.maker = maker
        self.client = maker.client
        self.shown = maker.shown
        self.step = step
        self.how: Rolling = step.rolling
        self.told = told
        self.done: list[Done] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """Replaces all. Raises Failed as ``failure_action`` wants it."""
        changes = list(self.step.changes)
        size = self.how.parallelism or len(changes)
        failed: list[BaseException] = []
        for start in range(0, len(changes), size):
            if start and self.how.delay:
                time.sleep(self.how.delay)
            by_name = {change.name: change for change in changes[start : start + size]}
            problems = each(by_name, self._replacer(by_name), size)
            failed += problems.values()
            ratio = len(failed) / len(changes)
            if failed and ratio > self.how.max_failure_ratio:
                self._act(failed[0])
        self._forget_old()
        if failed:
            raise self._failure(failed[0], f"{len(failed)} of {len(changes)} were not replaced")

    def _replacer(self, by_name: dict[str, Change]) -> Callable[[str], None]:
        return lambda name: self._replace(by_name[name])

    def _act(self, problem: BaseException) -> None:
        """After a failure that is one too many. Raises, unless it is to go on."""
        if self.how.failure_action == CONTINUE:
            return
        if self.how.failure_action == ROLLBACK:
            back = len(self.done)
            self._roll_back()
            raise self._failure(problem, f"rolled back ({back} had been replaced)") from problem
        count = len(self.done)
        self._forget_old()
        raise self._failure(problem, f"ended there ({count} had been replaced)") from problem

    def _roll_back(self) -> None:
        """Puts the old ones back, the last one first, as ``rollback_config`` wants it."""
        back = self.how.back
        by_name = {done.change.name: done for done in reversed(self.done)}
        names = list(by_name)
        size = back.parallelism or len(names) or 1
        for start in range(0, len(names), size):
            if start and back.delay:
                time.sleep(back.delay)
            each(names[start : start + size], lambda name: self._put_back(by_name[name]), size)

    def _put_back(self, done: Done) -> None:
        if self.how.back.order == STOP_FIRST:
            try:
                self._leave(done.new)
            except GemelError as problem:
                self.shown.note(f"warning: {done.change.name}: {problem.brief}")
        self._restore(done.change, done.new)

    def _failure(self, problem: BaseException, what: str) -> Failed:
        details = problem.brief if isinstance(problem, GemelError) else str(problem)
        more = problem.details if isinstance(problem, GemelError) else ""
        service = self.step.service
        return Failed(
            f"the update of {service} has failed: {what}",
            details=f"{details}\n{more}".strip(),
            resolution=f"the old instances go on; gemel logs {service} shows their output",
        )

    def _replace(self, change: Change) -> None:
        text = f"Container {change.name}"
        old = change.container
        self.shown.working(text, "Updating")
        one = msgspec.structs.replace(
            self.step, name=change.name, index=old.index, inherit=change.inherit
        )
        new = self.maker.create(one, f"{old.id[:12]}_{change.name}")
        try:
            self.maker.pre_start.run(one.service, new, remade=True)
            if self.how.order == START_FIRST:
                self._admit(new, old.id)
                self._leave(old.id)
            else:
                self._leave(old.id)
                self._admit(new, old.id)
            self._watch(new, change.name)
        except BaseException as problem:
            if isinstance(problem, GemelError):
                output = last_lines(self.client, new)
                problem.details = f"{problem.details}\nits last output:\n{output}".strip()
            self.shown.failed(text, "Taken back")
            self._restore(change, new)
            raise
        self._rename(old.id, f"{new[:12]}_{change.name}")
        self._rename(new, change.name)
        self.told(change.name, new)
        with self._lock:
            self.done.append(Done(change, new))
        self.shown.done(text, "Updated")

    def _admit(self, new: str, old: str) -> None:
        """Starts one and lets it take the other's place when it is ready."""
        try:
            self.client.post(f"/gemel/containers/{new}/start-held", timeout=180)
        except NotModified:
            pass
        self.client.post(
            f"/gemel/containers/{new}/admit", replaces=old, t=READY, timeout=READY + 60
        )

    def _leave(self, id: str) -> None:
        """Stops one once its connections have ended. It is fine if it has ended already."""
        drain = self.how.drain
        self.client.post(f"/gemel/containers/{id}/drain", t=round(drain), timeout=drain + 60)
        limit = (60 if self.step.timeout is None else self.step.timeout) + 120
        try:
            self.client.post(f"/containers/{id}/stop", t=self.step.timeout, timeout=limit)
        except NotModified:
            pass

    def _watch(self, id: str, name: str) -> None:
        """``monitor``: whether it stays well for a while. Raises Failed."""
        deadline = time.monotonic() + self.how.monitor
        while self.how.monitor:
            info = self.client.get(f"/containers/{id}/json")
            state = info["State"]
            health = (state.get("Health") or {}).get("Status", "")
            if state["Status"] != "running" or info.get("RestartCount"):
                raise Failed(f"container {name} exited ({state.get('ExitCode')})")
            if health == "unhealthy":
                raise Failed(f"container {name} is unhealthy")
            if time.monotonic() > deadline:
                return
            time.sleep(min(0.2, self.how.monitor))

    def _restore(self, change: Change, new: str) -> None:
        """The old one takes its place again; the new one is removed. Never raises."""
        old = change.container.id
        try:
            if self.client.get(f"/containers/{new}/json")["State"]["Running"]:
                self._admit(old, new)
                self._leave(new)
            self.client.delete(f"/containers/{new}", force=True, v=False, timeout=120)
            self._rename(old, change.name)
            # admitted again in any case: nothing else stands in its place now
            self._admit(old, "")
        except GemelError as problem:
            self.shown.note(f"warning: {change.name} is not as it was: {problem.brief}")

    def _rename(self, id: str, name: str) -> None:
        if self.client.get(f"/containers/{id}/json")["Name"].lstrip("/") != name:
            self.client.post(f"/containers/{id}/rename", name=name)

    def _forget_old(self) -> None:
        for done in self.done:
            try:
                self.client.delete(
                    f"/containers/{done.change.container.id}", force=True, timeout=120
                )
            except NotFound:
                pass
