"""Logs of many containers in the order of time."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gemel.client.engine import Client
from gemel.client.hijack import Demultiplexer, Output
from gemel.client.project.logs import Lines, LogOptions, open_log
from gemel.client.project.members import Target
from gemel.errors import NotFound

#: Seconds for which a line waits for older ones of other containers; lines that wait at most.
PATIENCE, MOST = 0.15, 50_000


class Entry(NamedTuple):
    """A line. at: RFC 3339 with nanoseconds, in UTC: sorts as text."""

    at: str
    place: int
    """Of its target among all."""
    text: str
    error: bool


def merged(client: Client, targets: Sequence[Target], options: LogOptions) -> Iterator[Entry]:
    """The lines of all targets, oldest first; ends when each has ended."""
    if not options.follow:
        logs = [_entries(client, one, place, options) for place, one in enumerate(targets)]
        yield from logs[0] if len(logs) == 1 else heapq.merge(*logs)
    else:
        yield from _followed(client, targets, options)


def _entries(client: Client, target: Target, place: int, options: LogOptions) -> Iterator[Entry]:
    response = open_log(client, target, options._replace(timestamps=True))
    found: list[Entry] = []

    def put(error: bool) -> Callable[[str], None]:
        def line(text: str) -> None:
            at, _, rest = text.partition(" ")
            found.append(Entry(at, place, rest, error))

        return line

    out, err = Lines(put(False)), Lines(put(True))
    raw = "raw" in response.headers.get("content-type", "multiplexed")
    split = Demultiplexer(Output(out.feed, err.feed), raw=raw)
    for chunk in response.chunks():
        split.feed(chunk)
        yield from found
        found.clear()
    out.end()
    err.end()
    yield from found


_Sent = Entry | BaseException | None


def _followed(client: Client, targets: Sequence[Target], options: LogOptions) -> Iterator[Entry]:
    """A thread reads each log; a line waits a moment for those that are older."""
    lines: queue.Queue[_Sent] = queue.Queue(MOST)

    def work(place: int, target: Target) -> None:
        try:
            for entry in _entries(client, target, place, options):
                lines.put(entry)
            lines.put(None)
        except NotFound:
            lines.put(None)  # removed meanwhile
        except BaseException as problem:
            lines.put(problem)

    for place, target in enumerate(targets):
        threading.Thread(target=work, args=(place, target), daemon=True).start()
    patience = PATIENCE if len(targets) > 1 else 0.0
    yield from _in_order(lines, len(targets), patience)


def _in_order(lines: queue.Queue[_Sent], left: int, patience: float) -> Iterator[Entry]:
    held: list[tuple[Entry, float]] = []
    while left or held:
        now = time.monotonic()
        while held and (not left or held[0][1] <= now or len(held) > MOST):
            yield heapq.heappop(held)[0]
        try:
            wait = max(0.0, held[0][1] - now) if held else None
            item = lines.get(timeout=wait) if left else None
        except queue.Empty:
            continue
        if isinstance(item, Entry):
            heapq.heappush(held, (item, time.monotonic() + patience))
        elif isinstance(item, BaseException):
            raise item
        elif left:
            left -= 1
