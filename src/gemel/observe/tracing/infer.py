"""Which incoming call a service made an outgoing call for, if nobody says so. Pure.

A call that leaves a service while the service is answering exactly one other call was
most likely made for it. While it answers several, the one is chosen that fits best:

- it lasts until the outgoing call has ended (who asks waits for the answer);
- it is not waiting for another outgoing call already (most handlers do one thing at a time);
- its connection and the outgoing one were seen together before, when there was no doubt (a
  thread with connections of its own);
- the time since it came, or since the end of the last call made for it, is the usual one for
  such a pair, as learned where there was no doubt; the shortest, where nothing is known.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from gemel.observe.tracing.records import Call
from gemel.observe.tracing.tree import Node

#: Seconds by which what is observed may be inexact.
SLACK = 0.002
#: Calls that a service answers at once that are looked at; the latest ones.
MOST = 256
#: Weights of what speaks against a candidate; the gap counts with its distance in e-folds.
ENDS_BEFORE, BUSY, STRANGE = 6.0, 3.0, 2.0
_LEARNING = 0.2
_Kind = tuple[str, str, str]


class Gaps:
    """Usual times between a cause and the call made for it, by kind: a mean of logarithms."""

    def __init__(self) -> None:
        self._known: dict[_Kind, float] = {}

    def learn(self, kind: _Kind, gap: float) -> None:
        """A gap that was seen where there was no doubt."""
        value = math.log(max(gap, 1e-6))
        before = self._known.get(kind)
        if before is None and len(self._known) >= 10_000:
            return
        self._known[kind] = value if before is None else before + _LEARNING * (value - before)

    def distance(self, kind: _Kind, gap: float) -> float:
        """How unusual a gap is, in e-folds; without knowledge, the shorter the better."""
        value = math.log(max(gap, 1e-6))
        usual = self._known.get(kind)
        if usual is None:
            return value - math.log(1e-6)
        return abs(value - usual)


class Service:
    """The calls that one instance is answering, in the order in which they came."""

    def __init__(self) -> None:
        self.answering: deque[Node] = deque(maxlen=MOST)

    def at(self, moment: float) -> list[Node]:
        """Those that were being answered then. Moments must not go back."""
        kept = [node for node in self.answering if node.end + SLACK >= moment]
        if len(kept) != len(self.answering):
            self.answering = deque(kept, maxlen=MOST)
        return kept


class Inference:
    """Finds causes; calls come in the order in which they began."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._gaps = Gaps()
        self._pairs: dict[tuple[int, int], int] = {}
        """How often an incoming and an outgoing connection were surely used together."""
        self._used: dict[int, int] = {}
        """The incoming connection that an outgoing one was last surely used for."""

    def answering(self, node: Node, key: str) -> None:
        """A service begins to answer a call."""
        if key:
            self._services.setdefault(key, Service()).answering.append(node)

    def cause(self, call: Call, node: Node, key: str) -> tuple[Node, bool] | None:
        """The call that ``call`` was made for, and whether that is inferred; None without one."""
        service = self._services.get(key) if key else None
        if service is None:
            return None
        candidates = [one for one in service.at(call.start) if one.start <= call.start]
        chosen, named = _named(call, candidates)
        if not chosen:
            return None
        if len(chosen) == 1:
            best = chosen[0]
            if node.end <= best.end + SLACK:
                self._learn(call, node, best)
        else:
            best = min(chosen, key=lambda one: self._against(call, node, one))
        best.free = max(best.free, node.end)
        best.calls += 1
        return best, not named or len(chosen) > 1

    def _against(self, call: Call, node: Node, one: Node) -> float:
        """What speaks against a candidate; the smallest is chosen."""
        points = self._gaps.distance(_kind(call, one), _gap(node, one))
        if node.end > one.end + SLACK:
            points += ENDS_BEFORE
        if one.free > node.start:
            points += BUSY
        used = self._used.get(call.connection)
        if used is not None and used != one.connection:
            points += STRANGE
        return points

    def _learn(self, call: Call, node: Node, best: Node) -> None:
        self._gaps.learn(_kind(call, best), _gap(node, best))
        if call.connection:
            if len(self._used) > 50_000:
                self._used.clear()
            self._used[call.connection] = best.connection


def _named(call: Call, candidates: Sequence[Node]) -> tuple[list[Node], bool]:
    """The candidates that ids allow, and whether ids name them."""
    if call.trace:
        same = [one for one in candidates if one.tree().trace == call.trace]
        if same:
            return same, True
        return [one for one in candidates if not one.tree().trace], False
    if call.request:
        same = [one for one in candidates if one.request == call.request]
        if same:
            return same, True
        return [one for one in candidates if not one.request], False
    return list(candidates), False


def _gap(node: Node, one: Node) -> float:
    free = one.free if one.free <= node.start else one.start
    return node.start - max(one.start, free)


def _kind(call: Call, one: Node) -> _Kind:
    return (
        one.service,
        f"{call.protocol} {call.target.service or call.target.address}",
        (f"{one.kind_of_work} {min(one.calls, 3)}"),
    )
