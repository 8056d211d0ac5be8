"""What was received and observed of late, bounded by number and memory; and the traces of it."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from gemel.observe.tracing import otlp, shown
from gemel.observe.tracing.join import Joined, join
from gemel.observe.tracing.records import Ask, Call, Counts, Log, Peer, Point, Span, Trace, Whole

#: Calls, spans, bytes of spans, logs, bytes of logs, and series of metrics that are kept.
CALLS, SPANS, SPAN_BYTES = 20_000, 50_000, 64 << 20
_EXPORTS = ("/v1/traces", "/v1/logs", "/v1/metrics", "/opentelemetry.proto.collector.")
LOGS, LOG_BYTES, SERIES = 20_000, 16 << 20, 5_000


def _is_export(call: Call) -> bool:
    """Whether a service sends its own spans by it."""
    return not call.target.instance and call.path.startswith(_EXPORTS)


class Kept:
    """The latest of something; the oldest goes when there are too many, or too much."""

    def __init__(self, count: int, size: int) -> None:
        self.items: deque[Any] = deque()
        self._count, self._size, self._bytes = count, size, 0

    def add(self, item: Any) -> int:
        """Keeps it. Gives back how many had to go."""
        weight: int = item.weight()
        self.items.append((item, weight))
        self._bytes += weight
        gone = 0
        while len(self.items) > self._count or self._bytes > self._size:
            self._bytes -= self.items.popleft()[1]
            gone += 1
        return gone


class Store:
    """See the module."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=CALLS)
        self._spans = Kept(SPANS, SPAN_BYTES)
        self._logs = Kept(LOGS, LOG_BYTES)
        self._points: dict[tuple[str, ...], Point] = {}
        self.counts = Counts()
        self.epoch = ""
        self.seen = 0
        """Number of the last call that was read."""
        self._changes = 0
        self._not_before = 0.0
        self._joined: tuple[int, list[Joined]] = (-1, [])

    # --- in ---------------------------------------------------------------------------

    def take(self, what: str, message: Any, source: Peer) -> None:
        """What a request to export brings."""
        counts = self.counts
        if what == "traces":
            for span in otlp.spans(message, source):
                counts.spans += 1
                counts.forgotten += self._spans.add(span)
        elif what == "logs":
            for log in otlp.logs(message, source):
                counts.logs += 1
                if log.trace:  # others would never be shown
                    counts.forgotten += self._logs.add(log)
        else:
            for point in otlp.points(message, source):
                counts.points += 1
                self._point(point)
        self._changes += 1

    def _point(self, point: Point) -> None:
        labels = (f"{key}={value}" for key, value in sorted(point.labels.items()))
        key = (point.service, point.name, *labels)
        if key in self._points or len(self._points) < SERIES:
            self._points[key] = point
        else:
            self.counts.forgotten += 1

    def begin(self, epoch: str) -> None:
        """Calls come from this capturing process; those of another one are forgotten."""
        if epoch != self.epoch:
            self.epoch, self.seen = epoch, 0
            self._calls.clear()
            self._changes += 1

    def observe(self, call: Call) -> None:
        """A call that was observed."""
        self.seen = max(self.seen, int(call.id))
        if not _is_export(call):
            self._calls.append(call)
            self._changes += 1

    # --- out --------------------------------------------------------------------------

    def traces(self) -> list[Joined]:
        """All traces, oldest first. Joined anew only after a change, and at most a fifth of the
        time: with all places full it takes a second, and many may ask."""
        begun = time.monotonic()
        if self._joined[0] != self._changes and begun >= self._not_before:
            changes = self._changes
            spans: list[Span] = [span for span, _ in self._spans.items]
            self._joined = (changes, join(list(self._calls), spans, self.epoch))
            ended = time.monotonic()
            self._not_before = ended + 4 * (ended - begun)
        return self._joined[1]

    def find(self, ask: Ask) -> list[tuple[Joined, Trace]]:
        """The traces that are asked for, oldest first."""
        found: list[tuple[Joined, Trace]] = []
        for joined in reversed(self.traces()):
            if shown.may_match(joined, ask):
                trace = shown.summary(joined)
                if shown.matches(trace, ask):
                    found.append((joined, trace))
                    if ask.tail and len(found) >= ask.tail:
                        break
        return found[::-1]

    def whole(self, ask: Ask) -> Whole | None:
        """The newest trace whose id begins as asked, or that has a call of that number."""
        for joined in reversed(self.traces()):
            if ask.id == "newest":
                if not shown.may_match(joined, ask):
                    continue
            elif not joined.id.startswith(ask.id):
                continue
            logs: list[Log] = [log for log, _ in self._logs.items if log.trace == joined.id]
            return shown.whole(joined, logs)
        return None

    def points(self) -> list[Point]:
        """The latest values of metrics."""
        return list(self._points.values())

    def told(self) -> Counts:
        """What was received, and what is kept now."""
        self.counts.kept_spans, self.counts.kept_calls = len(self._spans.items), len(self._calls)
        return self.counts
