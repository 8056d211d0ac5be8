"""What instances used over the last minutes: a bounded ring for each, in memory.

Looking costs the least where it is cheap: a round that took long is followed by a
pause so much longer that all looking together takes at most a two-hundredth of a core.
"""

from __future__ import annotations

import asyncio
import collections
import time

import msgspec

from gemel.engine.core import Core
from gemel.errors import GemelError

#: Seconds between two looks, at least.
PERIOD = 10.0
#: A round's own time is at most this part of the time to the next one.
SHARE = 200
#: Looks that are kept of an instance (ten minutes of them).
KEEP = 60


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """time in seconds since the epoch, CPU in seconds since the start, memory in bytes."""

    time: float
    cpu: float
    memory: int
    limit: int
    pids: int


class Curves:
    """The rings, and the task that fills them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rings: dict[str, collections.deque[Sample]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; the engine owns it."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="resource curves")

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def of(self, id: str) -> list[Sample]:
        """The looks at an instance, oldest first."""
        return list(self._rings.get(id, ()))

    async def look(self, id: str) -> None:
        """One look, if it runs."""
        one = self._core.containers.get(id)
        if one is None or one.state.status != "running":
            return
        try:
            async with asyncio.timeout(5):
                used = await self._core.runtime(one).usage(id)
        except (GemelError, OSError, TimeoutError):
            return
        ring = self._rings.setdefault(id, collections.deque(maxlen=KEEP))
        ring.append(
            Sample(
                round(time.time(), 3),
                round(used.cpu_ns / 1e9, 3),
                used.memory,
                used.memory_limit,
                used.pids,
            )
        )

    async def _run(self) -> None:
        while True:
            begun = time.process_time()
            for id in list(self._core.containers):
                await self.look(id)
            for id in self._rings.keys() - self._core.containers.keys():
                del self._rings[id]
            took = time.process_time() - begun
            await asyncio.sleep(max(PERIOD, took * SHARE))
