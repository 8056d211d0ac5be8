"""What all micro VMs of an engine share: their tools, and whether KVM runs them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from gemel.model.paths import Paths
from gemel.runtime.microvm import probe
from gemel.runtime.microvm.tools import Tools, find_tools

log = logging.getLogger("gemel.microvm")


class Machinery:
    """Looked for once, when the first micro VM starts; again after a failure."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._tools: asyncio.Task[Tools] | None = None
        self._verdict: asyncio.Task[probe.Verdict] | None = None
        self._outdated: set[asyncio.Task[Any]] = set()

    async def tools(self) -> Tools:
        """Programs, kernel and initrd. Raises Unavailable, Failed."""
        if self._tools is None or _failed(self._tools):
            self._tools = asyncio.create_task(
                find_tools(self._paths, lambda line: log.info("%s", line))
            )
        return await asyncio.shield(self._tools)

    async def verdict(self) -> probe.Verdict:
        """KVM or emulation, and why. Raises Unavailable, Failed."""
        tools = await self.tools()
        if self._verdict is None or _failed(self._verdict):
            self._verdict = asyncio.create_task(self._examine(tools))
        return await asyncio.shield(self._verdict)

    async def _examine(self, tools: Tools) -> probe.Verdict:
        verdict = await probe.accelerator(self._paths, tools)
        if not verdict.usable_kvm:
            log.warning(
                "micro VMs run under software emulation: %s\n%s", verdict.reason, verdict.details
            )
        return verdict

    async def both(self) -> tuple[Tools, bool]:
        """The tools, and whether KVM is used. Raises Unavailable, Failed."""
        return await self.tools(), (await self.verdict()).usable_kvm

    def forget(self) -> None:
        """Has who asks from now on look anew, as when another kernel was chosen."""
        for task in filter(None, (self._tools, self._verdict)):
            if not task.done():  # who waits for it gets its answer still
                self._outdated.add(task)
                task.add_done_callback(self._outdated.discard)
        self._tools = self._verdict = None

    async def close(self) -> None:
        """Gives up what is being looked for."""
        tasks = [*self._outdated, *filter(None, (self._tools, self._verdict))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
