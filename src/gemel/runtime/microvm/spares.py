"""Where VMs live that are no instance's: templates while they are made, VMs that stand by."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path

from gemel.model.paths import Paths
from gemel.runtime.microvm import idle, relay


class Spares:
    """Run folders and control groups of one kind of such VMs."""

    def __init__(self, paths: Paths, kind: str) -> None:
        """kind: what their folder, and the names of their groups, are called by."""
        self._base = paths.run / kind
        self._groups = f"{paths.cgroup}/{kind}"

    def folder(self) -> Path:
        """The run folder of a new one, which is not made by this."""
        return self._base / secrets.token_hex(4)

    def group(self, folder: Path) -> str:
        """The control group of the one with this run folder."""
        return f"{self._groups}-{folder.name}"

    async def clear(self, folder: Path) -> None:
        """Waits for its relay's end, ends what does not end by itself, and removes what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(relay.END_TIMEOUT):
                await relay.ended(folder)
        await asyncio.to_thread(idle.clear, folder, self.group(folder))

    async def sweep(self) -> None:
        """Clears away what an earlier engine left when it was killed."""
        with contextlib.suppress(FileNotFoundError):
            for folder in self._base.iterdir():
                await self.clear(folder)
