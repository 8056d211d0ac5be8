"""``up`` of the example shop until all of it is healthy, and ``down``: all its services as micro
VMs, and all as containers."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.engine import EngineProcess
from tests.shopimages import SHOP

from bench.measure import Aim, Case, in_turns, timed
from bench.peers import Field, Gemel, command

SERVICES = ("web", "orders", "payments", "db", "cache")
#: Seconds for the shop on a machine with much else to do.
_DEADLINE = 600


class Shop:
    """The shop with one runtime for all; its data goes with each ``down``."""

    def __init__(self, gemel: Gemel, runtime: str) -> None:
        self._gemel = gemel
        self._runtime = runtime
        self.downs: list[float] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._env = {**gemel.env, "SHOP_PORT": str(probe.getsockname()[1])}

    def _run(self, *words: str) -> None:
        where = ("-f", SHOP / "compose.yaml", "-p", f"shop-{self._runtime}")
        command([*self._gemel.cli, *where, *words], self._env, timeout=_DEADLINE + 60)

    def up(self) -> None:
        """Until every service is healthy."""
        given = [w for name in SERVICES for w in ("--runtime", f"{name}={self._runtime}")]
        self._run("up", "-d", "--wait", "--wait-timeout", str(_DEADLINE), *given)

    def round(self) -> float:
        """Up and down; the seconds of the first, those of the second are kept."""
        took = timed(self.up)
        self.downs.append(timed(lambda: self._run("down", "-v")))
        return took


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """In turns, in an engine of its own. The first round of each, which makes the templates, is
    not counted."""
    gemel = Gemel(before=EngineProcess.import_shop)
    try:
        shops = {name: Shop(gemel, one) for name, one in _KINDS.items()}
        up = Case("shop", "up of five services, until all are healthy", aims=[_AIM])
        calls: dict[str, Callable[[], float]] = {name: one.round for name, one in shops.items()}
        in_turns(up, calls, min(rounds, 7), seconds)
    finally:
        gemel.stop()
    down = Case("shop", "down of the same")
    down.series = {name: shop.downs[1:] for name, shop in shops.items()}
    return [up, down]


_KINDS = {"micro VMs": "microvm", "containers": "container"}
_AIM = Aim(2, "containers", of="micro VMs")
