"""down: stops and removes what a project has, in reverse order of its dependencies.

Everything is found by the labels on it, so it also works without the Compose file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gemel.client.engine import Client
from gemel.client.project.display import Progress
from gemel.client.project.members import PROJECT, Target, needs, of_project
from gemel.client.project.pool import each, run_graph
from gemel.errors import Conflict, GemelError, NotFound, NotModified

if TYPE_CHECKING:
    from gemel.client.project.providers import Providers


class Down:
    """Takes a project down.

    services: only these (None: all of the project's, whatever the file says now).
    providers: call the programs that run services of the file, if there are such.
    """

    def __init__(
        self,
        client: Client,
        project: str,
        parallel: int = 16,
        providers: Providers | None = None,
    ) -> None:
        self.client = client
        self.project = project
        self.parallel = parallel
        self.providers = providers
        self._problems: list[GemelError] = []

    def run(
        self,
        mode: str = "auto",
        *,
        services: Collection[str] | None = None,
        timeout: int | None = None,
        volumes: bool = False,
        images: Collection[str] = (),
        networks: bool = True,
        colour: bool = True,
    ) -> int:
        """Does it all; how many things were removed. Raises the first problem.

        A provider that fails does not keep the rest: its problem is raised at the end.
        volumes: also the project's volumes. images: names of images to remove.
        """
        members = self._members(services)
        with Progress("Running", mode, colour=colour) as shown:
            with self.providers.talks.guarded() if self.providers else contextlib.nullcontext():
                self.containers(members, shown, timeout=timeout, volumes=volumes)
            count = len(members)
            if networks:
                count += self._each("Network", self._labelled("networks"), shown)
            if volumes:
                count += self._each("Volume", self._labelled("volumes"), shown)
            if images:
                count += self._each("Image", list(images), shown)
        for problem in self._problems:
            raise problem
        return count

    def _members(self, services: Collection[str] | None) -> list[Target]:
        """What is to be removed: containers, and services that providers run."""
        found = of_project(self.client, self.project)
        if self.providers is not None:
            found += self.providers.targets()
        return [one for one in found if services is None or one.service in services]

    def would(
        self, services: Collection[str] | None, *, volumes: bool, networks: bool
    ) -> list[str]:
        """What ``run`` would remove, a line each; nothing is removed."""
        lines = [
            f"remove container: {one.name} ({one.state})" if one.id else f"run provider: {one.name}"
            for one in self._members(services)
        ]
        if networks:
            lines += [f"remove network: {name}" for name in self._labelled("networks")]
        if volumes:
            lines += [f"remove volume: {name}" for name in self._labelled("volumes")]
        return lines

    def containers(
        self,
        members: list[Target],
        shown: Progress,
        *,
        timeout: int | None = None,
        volumes: bool = False,
    ) -> None:
        """Stops and removes containers, those first that others do not need."""

        def work(target: Target) -> None:
            if not target.id:
                self._release(target, shown)
                return
            name = target.title
            try:
                if target.running:
                    shown.working(name, "Stopping")
                    self._stop(target, timeout)
                    shown.working(name, "Stopped")
                shown.working(name, "Removing")
                self._remove(target, volumes)
            except BaseException:
                shown.failed(name)
                raise
            shown.done(name, "Removed")

        failed = run_graph(needs(members, reverse=True), work, self.parallel)
        for problem in failed.values():
            raise problem

    def _release(self, target: Target, shown: Progress) -> None:
        assert self.providers is not None
        try:
            self.providers.down(target.service, shown)
        except GemelError as problem:
            self._problems.append(problem)

    def _stop(self, target: Target, timeout: int | None) -> None:
        limit = (60 if timeout is None else timeout) + 120
        try:
            self.client.post(f"/containers/{target.id}/stop", t=timeout, timeout=limit)
        except (NotModified, NotFound):
            pass

    def _remove(self, target: Target, volumes: bool) -> None:
        try:
            self.client.delete(f"/containers/{target.id}", force=True, v=volumes, timeout=120)
        except NotFound:
            pass  # --rm: the engine was first

    def _labelled(self, kind: str) -> list[str]:
        filters = {"label": [f"{PROJECT}={self.project}"]}
        found: Any = self.client.get(f"/{kind}", filters=filters)
        if kind == "volumes":
            found = found.get("Volumes") or []
        return sorted(str(entry["Name"]) for entry in found)

    def _each(self, kind: str, names: list[str], shown: Progress) -> int:
        """Removes networks, volumes or images at once; one still used by others stays."""

        def work(name: str) -> None:
            label = f"{kind} {name}"
            shown.working(label, "Removing")
            try:
                self.client.delete(f"/{kind.lower()}s/{name}", timeout=120)
            except NotFound:
                pass
            except Conflict as problem:
                shown.failed(label, f"Resource is still in use: {problem.brief}")
                return
            except GemelError:
                shown.failed(label)
                raise
            shown.done(label, "Removed")

        for problem in each(names, work, self.parallel).values():
            raise problem
        return len(names)
