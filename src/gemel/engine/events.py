"""Events as Docker has them: a bounded past, and subscribers that cannot grow memory."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from gemel.engine import filters
from gemel.engine.facade import Filters, Json

KEEP = 1024
QUEUE = 4096
FULL: Json = {}


class Events:
    """The engine's event bus (Docker Engine API: GET /events)."""

    def __init__(self) -> None:
        self._past: collections.deque[Json] = collections.deque(maxlen=KEEP)
        self._subscribers: set[asyncio.Queue[Json]] = set()

    def emit(self, kind: str, action: str, id: str, attributes: Mapping[str, Any]) -> None:
        """Publishes an event. A subscriber whose queue is full is cut off."""
        ns = time.time_ns()
        event: Json = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": id, "Attributes": {k: str(v) for k, v in attributes.items()}},
            "scope": "local",
            "time": ns // 1_000_000_000,
            "timeNano": ns,
        }
        if kind == "container":
            event |= {"status": action, "id": id, "from": attributes.get("image", "")}
        self._past.append(event)
        for queue in list(self._subscribers):
            if queue.full():
                self._subscribers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(FULL)
            else:
                queue.put_nowait(event)

    def past(self) -> list[Json]:
        """The events that are kept, oldest first."""
        return list(self._past)

    def stream(self, since: int, until: int, wanted: Filters) -> AsyncIterator[Json]:
        """Registers now; yields past events after ``since`` (ns) and new ones up to ``until``."""
        queue: asyncio.Queue[Json] = asyncio.Queue(QUEUE)
        past = [event for event in self._past if since and event["timeNano"] >= since]
        self._subscribers.add(queue)
        return self._follow(queue, past, until, wanted)

    async def _follow(
        self, queue: asyncio.Queue[Json], past: list[Json], until: int, wanted: Filters
    ) -> AsyncIterator[Json]:
        try:
            for event in past:
                if (not until or event["timeNano"] <= until) and filters.event(event, wanted):
                    yield event
            while True:
                event = await self._next(queue, until)
                if event is FULL:
                    return
                if filters.event(event, wanted):
                    yield event
        finally:
            self._subscribers.discard(queue)

    async def _next(self, queue: asyncio.Queue[Json], until: int) -> Json:
        if not until:
            return await queue.get()
        left = (until - time.time_ns()) / 1e9
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await queue.get()
        except TimeoutError:
            return FULL
