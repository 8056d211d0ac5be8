"""Comparisons as the engine offers them (facade.Comparing): one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from gemel.engine import resolve
from gemel.engine.choosing import facts
from gemel.engine.comparing import load, reports, request
from gemel.engine.comparing.experiment import Experiment, begin
from gemel.engine.containers import Containers
from gemel.engine.core import Core
from gemel.engine.facade import Json, Jsons
from gemel.errors import Conflict, GemelError, InvalidInput, NotFound, Unsupported
from gemel.model.comparison import MAX_CONNECTIONS, MAX_ROUNDS, MAX_SECONDS, Wanted
from gemel.model.docker import CreateRequest
from gemel.model.instance import RuntimeName


class Comparing:
    """Measures, chooses, and tells why."""

    def __init__(self, core: Core, containers: Containers) -> None:
        self.core = core
        self.containers = containers
        self._busy = False

    async def prepare(self) -> None:
        """Removes what a comparison left whose engine was killed."""
        for one in list(self.core.containers.values()):
            if request.LABEL in (one.request.labels or {}):
                with contextlib.suppress(GemelError):
                    await self.containers.remove(one.id, force=True, volumes=True)

    async def preview(self, wanted: CreateRequest) -> Json:
        """What ``runtime: auto`` would be for a container, without making it."""
        full, image_id = wanted, ""
        # an image that is not pulled or built yet says nothing that the rules ask
        with contextlib.suppress(NotFound):
            image = self.core.images.find(wanted.image)
            full, image_id = resolve.effective(wanted, image), image.id
        shown: Json = msgspec.to_builtins(await facts.choose(self.core, full, image_id))
        return shown

    async def explain(self, ref: str) -> Json:
        """Which runtime a container has, who chose it, and what the rules say now."""
        one = self.core.container(ref)
        now: Json | None = None
        problem = ""
        try:
            found = await facts.choose(self.core, one.request, one.image_id)
            now = msgspec.to_builtins(found)
        except InvalidInput as error:
            problem = error.brief
        asked = (one.request.host_config.runtime if one.request.host_config else "") or "container"
        return {
            "Id": one.id,
            "Name": one.name,
            "Runtime": one.runtime.value,
            "Asked": asked,
            "Chosen": msgspec.to_builtins(one.choice) if one.choice else None,
            "Now": now,
            "Problem": problem,
        }

    async def reports(self) -> Jsons:
        """The last report of each service, newest first."""
        found = await asyncio.to_thread(reports.all_kept, self.core.paths)
        return [msgspec.to_builtins(report) for report in found]

    def compare(self, wanted: Wanted) -> AsyncIterator[Json]:
        """Messages with ``status``, and one with the ``report`` at the end. Raises at once
        InvalidInput, NotFound, Conflict, Unavailable."""
        check(wanted)
        load.program()
        if self._busy:
            raise Conflict(
                "another comparison is under way",
                details="two at once would measure each other",
                resolution="try again when it has ended",
            )
        image = self.core.images.find(wanted.container.image)
        full = resolve.effective(wanted.container, image)
        return self._messages(wanted, full, image.id, image.size)

    async def _messages(
        self, wanted: Wanted, full: CreateRequest, image_id: str, size: int
    ) -> AsyncIterator[Json]:
        lines: asyncio.Queue[str | None] = asyncio.Queue()

        async def work() -> Json:
            try:
                accelerator = await self._accelerator()
                report = begin(wanted, wanted.container.image, image_id, size, accelerator)
                experiment = Experiment(
                    self.core, self.containers, wanted, full, report, lines.put_nowait
                )
                done = await experiment.run()
                await asyncio.to_thread(reports.keep, self.core.paths, done)
                shown: Json = msgspec.to_builtins(done)
                return shown
            finally:
                lines.put_nowait(None)

        if self._busy:
            raise Conflict("another comparison is under way")
        self._busy = True
        task = asyncio.create_task(work(), name="comparison")
        try:
            while (line := await lines.get()) is not None:
                yield {"status": line}
            yield {"report": await task}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._busy = False

    async def _accelerator(self) -> str:
        examine = getattr(self.core.runtimes[RuntimeName.MICROVM], "verdict", None)
        if examine is None:
            raise Unsupported("this engine has no micro VMs")
        verdict = await examine()
        return f"{verdict.name.upper()} ({verdict.reason})"


def check(wanted: Wanted) -> None:
    """Raises InvalidInput for what cannot be measured."""
    if not wanted.path.startswith("/") or any(c <= " " or c > "~" for c in wanted.path):
        raise InvalidInput(f"{wanted.path[:60]!r} is no path of a URL", resolution="such as /items")
    for name, value, most in (
        ("rounds", wanted.rounds, MAX_ROUNDS),
        ("seconds", wanted.seconds, MAX_SECONDS),
        ("start-timeout", wanted.start_timeout, 600),
    ):
        if not 1 <= value <= most:
            raise InvalidInput(f"{name} must be from 1 to {most:g}, not {value:g}")
    if not wanted.concurrency or not all(1 <= n <= MAX_CONNECTIONS for n in wanted.concurrency):
        raise InvalidInput(f"concurrency takes numbers from 1 to {MAX_CONNECTIONS}")
    if len(wanted.concurrency) > 6:
        raise InvalidInput("at most 6 concurrencies can be compared at once")
    if not 0 <= wanted.port < 65536:
        raise InvalidInput(f"{wanted.port} is no port")
    load.check_headers(wanted.headers)
