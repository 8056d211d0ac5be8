"""Keeps the files of logs that have been replaced by their writers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from gemel.engine.records import Container
from gemel.errors import GemelError
from gemel.host.inotify import Event, Watch
from gemel.model.docker import HostConfig
from gemel.model.paths import Paths
from gemel.observe import rotated

log = logging.getLogger("gemel.engine")

#: Seconds between two looks for what is too old.
SWEEP = 3600.0


def limits(one: Container) -> rotated.Limits:
    """How big and how many the files of a container's log may be."""
    config = (one.request.host_config or HostConfig()).log_config
    return rotated.limits((config.config if config else None) or {})


class Rotation:
    """One task for all logs; it sleeps until one is replaced."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._logs: dict[Path, int] = {}
        self._watch: Watch | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, one: Container) -> None:
        """A container's log is written from now on. Never raises."""
        path = self._paths.instance(one.id) / "log"
        files = limits(one).files
        try:
            if self._watch is None:
                self._watch = Watch()
                self._task = asyncio.create_task(self._keep(self._watch), name="logs")
            self._logs[path] = files
            self._watch.add(path.parent, Event.MOVED_TO)
            self._watch.wake()
        except GemelError as error:
            log.warning("the log of %s is kept in one file: %s", one.name, error)

    async def _keep(self, watch: Watch) -> None:
        while True:
            by_change = await watch.wait(SWEEP)
            await asyncio.to_thread(self._look, not by_change)

    def _look(self, thoroughly: bool) -> None:
        for path, files in list(self._logs.items()):
            if not path.parent.exists():
                self._logs.pop(path, None)
                continue
            rotated.keep(path, files)
            if thoroughly:
                rotated.sweep(path, files)

    async def close(self) -> None:
        """Ends the task; logs go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._watch is not None:
            self._watch.close()
