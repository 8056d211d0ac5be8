"""Series of measurements, taken in turns so that a noisy moment hits every candidate alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Measures once: does what has to be done before and after, gives back the value (seconds, MB).
Once = Callable[[], float]
#: Fewest rounds, however long they take.
_FEWEST = 3


@dataclass(frozen=True)
class Aim:
    """What is aimed for: a median of at most ``limit``, or ``limit`` times that of ``beside``."""

    limit: float
    beside: str = ""
    of: str = "gemel"


@dataclass
class Case:
    """One thing that is measured, for gemel and its peers."""

    part: str
    name: str
    unit: str = "s"
    series: dict[str, list[float]] = field(default_factory=dict)
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def median(self, who: str) -> float:
        """Median of a candidate's values."""
        return statistics.median(self.series[who])

    def spread(self, who: str) -> tuple[float, float]:
        """First and third quartile; the extremes of fewer than four values."""
        values = sorted(self.series[who])
        if len(values) < 4:
            return values[0], values[-1]
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
        return first, third

    def ratio(self, who: str, beside: str) -> float | None:
        """Median of one by that of the other; None where either is missing."""
        if who not in self.series or beside not in self.series:
            return None
        return self.median(who) / self.median(beside)

    def verdict(self, aim: Aim) -> bool | None:
        """Whether the aim is met; None where it cannot be told."""
        if aim.beside:
            found = self.ratio(aim.of, aim.beside)
            return None if found is None else found <= aim.limit
        return self.median(aim.of) <= aim.limit if aim.of in self.series else None


def in_turns(
    case: Case, candidates: Mapping[str, Once], rounds: int, seconds: float, warm_up: int = 1
) -> Case:
    """Fills the case: each round measures every candidate once, beginning with another each time.

    rounds: as many as are wanted; fewer (at least three) once ``seconds`` are over.
    """
    names = list(candidates)
    for _ in range(warm_up):
        for name in names:
            candidates[name]()
    end = time.monotonic() + seconds
    for round in range(rounds):
        if round >= _FEWEST and time.monotonic() > end:
            case.notes.append(f"ended after {round} of {rounds} rounds: the time was up")
            break
        first = round % len(names) if names else 0
        for name in names[first:] + names[:first]:
            case.series.setdefault(name, []).append(candidates[name]())
    return case


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
