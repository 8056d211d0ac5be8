"""What goes to the pages: for each a bounded box that is filled without waiting.

Of a state the latest is kept; of what comes in rows (log lines, calls) the newest, and the
number of those that were dropped. So a page that reads slowly, or not at all, holds up nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

#: Rows that wait for one page, and bytes of them.
ROWS, BYTES = 10_000, 8 << 20
#: Rows and bytes that go in one message.
BATCH, BATCH_BYTES = 2_000, 512 << 10

TOPICS = frozenset(("services", "map", "calls", "logs"))


class Rows:
    """Rows of one topic that wait; each is JSON already."""

    def __init__(self) -> None:
        self._rows: deque[bytes] = deque()
        self._bytes = 0
        self.dropped = 0

    def add(self, rows: Iterable[bytes]) -> None:
        """The oldest are dropped and counted where there is no room."""
        for row in rows:
            self._rows.append(row)
            self._bytes += len(row)
        while len(self._rows) > ROWS or self._bytes > BYTES:
            self._bytes -= len(self._rows.popleft())
            self.dropped += 1

    def take(self) -> tuple[list[bytes], int]:
        """The next to send, and how many were dropped before them."""
        taken: list[bytes] = []
        size = 0
        while self._rows and len(taken) < BATCH and size < BATCH_BYTES:
            taken.append(self._rows.popleft())
            size += len(taken[-1])
        self._bytes -= size
        dropped, self.dropped = self.dropped, 0
        return taken, dropped

    def __bool__(self) -> bool:
        return bool(self._rows) or self.dropped > 0


class Box:
    """All that waits for one page."""

    def __init__(self) -> None:
        self.topics: frozenset[str] = frozenset()
        self.filled = asyncio.Event()
        self._states: dict[str, bytes] = {}
        self._rows: dict[str, Rows] = {}

    def choose(self, topics: Iterable[str]) -> frozenset[str]:
        """Looks at these from now on; gives back those that are new. Others are forgotten."""
        chosen = frozenset(topics) & TOPICS
        new = chosen - self.topics
        for gone in self.topics - chosen:
            self._states.pop(gone, None)
            self._rows.pop(gone, None)
        self.topics = chosen
        return new

    def put(self, kind: str, data: bytes) -> None:
        """A message of which the latest is enough."""
        self._states[kind] = data
        self.filled.set()

    def add(self, topic: str, rows: Sequence[bytes]) -> None:
        """Rows of a topic."""
        if rows:
            self._rows.setdefault(topic, Rows()).add(rows)
            self.filled.set()

    def drop(self, topic: str, count: int) -> None:
        """Tells that rows were left out elsewhere."""
        self._rows.setdefault(topic, Rows()).dropped += count
        self.filled.set()

    def take(self) -> list[bytes]:
        """The next messages: every state, and a batch of each topic's rows."""
        messages = list(self._states.values())
        self._states.clear()
        for topic, rows in self._rows.items():
            if rows:
                taken, dropped = rows.take()
                head = b'{"t":%s,"dropped":%d,"rows":[' % (msgspec.json.encode(topic), dropped)
                messages.append(head + b",".join(taken) + b"]}")
        if not any(self._rows.values()):
            self.filled.clear()
        return messages


class Hub:
    """All boxes. Nothing here waits."""

    def __init__(self) -> None:
        self.boxes: set[Box] = set()
        self.changed = asyncio.Event()
        """Set when somebody looks at something else than before."""
        self._last_seen: dict[str, float] = {}

    def wanted(self, *topics: str) -> bool:
        """Whether somebody looks at one of these."""
        return any(not box.topics.isdisjoint(topics) for box in self.boxes)

    def put(self, topic: str, data: bytes) -> None:
        """A state, for all who look at it."""
        for box in self.boxes:
            if topic in box.topics:
                box.put(topic, data)

    def add(self, topic: str, rows: Sequence[bytes]) -> None:
        """Rows, for all who look at them."""
        for box in self.boxes:
            if topic in box.topics:
                box.add(topic, rows)

    def drop(self, topic: str, count: int) -> None:
        """Tells all who look at the topic that rows were left out."""
        if count:
            for box in self.boxes:
                if topic in box.topics:
                    box.drop(topic, count)

    def lingers(self, *topics: str, seconds: float) -> bool:
        """Whether somebody looks at one of these, or did so within the last ``seconds``."""
        key, now = topics[0], time.monotonic()
        if self.wanted(*topics):
            self._last_seen[key] = now
        return now - self._last_seen.get(key, -1e9) < seconds

    async def until_wanted(self, *topics: str) -> None:
        """Waits until somebody looks at one of these."""
        while not self.wanted(*topics):
            self.changed.clear()
            await self.changed.wait()
