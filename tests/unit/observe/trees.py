"""Random trees of calls between services, as they would be observed; and what truly caused what."""

from __future__ import annotations

import random
from typing import NamedTuple

from gemel.observe.capture.records import Call, Peer


def peer(name: str) -> Peer:
    return Peer(address=f"10.0.0.{abs(hash(name)) % 250}", instance=name * 4, service=name)


HOST = Peer(address="10.0.0.254", name="host")


class World(NamedTuple):
    """calls, and for each call's id the id of its cause (empty: it came from outside)."""

    calls: list[Call]
    causes: dict[str, str]


def world(
    seed: int, requests: int, at_once: float, *, services: int = 5, fan: float = 0.2
) -> World:
    """Requests come so that ``at_once`` are answered at the same time on average.

    Each service works a while, calls others one after the other (or, with the
    probability ``fan``, at the same time), works again, and answers.
    """
    rng = random.Random(seed)
    names = [f"s{n}" for n in range(services)]
    calls: list[Call] = []
    causes: dict[str, str] = {}

    def ask(source: Peer, level: int, start: float, cause: str) -> float:
        id = str(len(causes) + 1)
        causes[id] = cause
        name = names[min(level, services - 1)] if level < 2 else rng.choice(names[2:])
        now = start + rng.lognormvariate(-6.5, 0.4)
        if level < 3:
            asked = rng.randrange(3)
            together = rng.random() < fan
            ends = [now]
            for n in range(asked):
                begin = now if not together else now + n * 0.0001
                end = ask(peer(name), level + 1, begin, id)
                ends.append(end)
                if not together:
                    now = end + rng.lognormvariate(-7.5, 0.4)
            now = max(now, *ends)
        end = now + rng.lognormvariate(-6.5, 0.4)
        calls.append(
            Call(
                id=id, protocol="http", start=start, duration=end - start, source=source,
                target=peer(name), method="GET", path=f"/{name}/{rng.randrange(100)}", status=200,
            )
        )  # fmt: skip
        return end

    at = 1000.0
    alone = ask(HOST, 0, at, "") - at
    calls.clear()
    causes.clear()
    for _ in range(requests):
        at += rng.expovariate(1.0) * alone / at_once
        ask(HOST, 0, at, "")
    return World(calls, causes)
