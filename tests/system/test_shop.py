"""The example shop in every combination of runtimes of its services, with orders through it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine import EngineProcess
from tests.shopimages import SHOP

pytestmark = pytest.mark.root

#: Those that change most often come first; the database, which all else waits for, last.
SERVICES = ("payments", "cache", "web", "orders", "db")
ORDER = {"items": [{"sku": "mug", "quantity": 2}], "card": "4242424242424242"}
PAID_CENTS = 2 * 1200
#: From whom to whom names must resolve, and to whom not (other network).
SEES = {
    "web": (("orders",), ("db",)),
    "orders": (("db", "cache", "payments", "web"), ()),
    "payments": (("orders", "db", "cache"), ("web",)),
    "db": (("orders", "payments"), ("web",)),
    "cache": (("orders", "db"), ("web",)),
}
PATIENCE = 120.0


def gray_code(bits: int) -> Iterator[tuple[int, ...]]:
    """All combinations of bits; one bit changes at a time, the first most often."""
    for number in range(1 << bits):
        code = number ^ (number >> 1)
        yield tuple(code >> bit & 1 for bit in range(bits))


class Shop:
    """The shop on an engine of its own, used as its user would."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def gemel(self, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        where = ("-f", str(SHOP / "compose.yaml"), "-p", "shop")
        return self.engine.gemel(*where, *args, timeout=timeout, env={"SHOP_PORT": str(self.port)})

    def up(self, runtimes: dict[str, str]) -> None:
        choices = [word for pair in runtimes.items() for word in ("--runtime", "=".join(pair))]
        self.gemel("up", "-d", "--wait", "--wait-timeout", "240", *choices)

    def rows(self) -> dict[str, dict[str, Any]]:
        """What ps tells, by service."""
        lines = self.gemel("ps", "--format", "json").stdout.splitlines()
        found = [json.loads(line) for line in lines]
        return {row["Service"]: row for row in found}

    def healthy(self) -> dict[str, dict[str, Any]]:
        """The same once all are healthy: who needs a service that was away is not for a moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            rows = self.rows()
            states = {name: row["Health"] for name, row in rows.items()}
            if set(states.values()) == {"healthy"}:
                return rows
            assert time.monotonic() < deadline, f"not healthy: {states}"
            time.sleep(0.5)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request through the published port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def order(self) -> str:
        """Places an order; its number. A connection that a recreated service had may fail once."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status, answer = self.ask("POST", "/api/orders", ORDER)
            if status == 201:
                assert (answer["status"], answer["total_cents"]) == ("paid", PAID_CENTS)
                return str(answer["id"])
            assert status == 502 and time.monotonic() < deadline, f"{status} {answer}"
            time.sleep(0.2)

    def find(self, order: str) -> Any:
        """The order as the shop tells it; see ``order`` for what may fail once."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status, answer = self.ask("GET", f"/api/orders/{order}")
            if status == 200:
                return answer
            assert status == 502 and time.monotonic() < deadline, f"{status} {answer}"
            time.sleep(0.2)

    def row(self, order: str) -> str:
        """The order as the database has it."""
        query = (
            "SELECT status, total_cents, sku, quantity FROM orders JOIN order_items"
            f" ON id = order_id WHERE id = '{order}'"
        )
        psql = ("psql", "-h", "/tmp", "-U", "shop", "-d", "shop", "-tAc", query)
        return self.gemel("exec", "-T", "db", *psql).stdout.strip()

    def logged(self) -> int:
        """Orders that the front's log tells of."""
        return self.gemel("logs", "--no-log-prefix", "web").stdout.count('"POST /api/orders')

    def names(self, service: str) -> None:
        """Checks from inside a service whose names it can resolve, and whose not."""
        seen, unseen = SEES[service]
        script = "".join(f"getent hosts {name} >/dev/null || echo no {name};" for name in seen)
        script += "".join(f"getent hosts {name} >/dev/null && echo yes {name};" for name in unseen)
        told = self.gemel("exec", "-T", service, "sh", "-c", script + "true").stdout
        assert told == "", f"{service} resolves otherwise than it should: {told}"


@pytest.fixture
def shop() -> Iterator[Shop]:
    engine = EngineProcess()
    try:
        engine.import_shop()
        engine.start()
        yield Shop(engine)
    finally:
        engine.stop()


@pytest.mark.timeout(1500)
def test_every_combination_of_runtimes(shop: Shop) -> None:
    before: dict[str, dict[str, Any]] = {}
    runtimes: dict[str, str] = {}
    orders: list[str] = []
    for bits in gray_code(len(SERVICES)):
        wanted = {
            name: "microvm" if bit else "container"
            for name, bit in zip(SERVICES, bits, strict=True)
        }
        changed = {name for name in SERVICES if runtimes.get(name) != wanted[name]}
        runtimes = wanted
        begun = time.monotonic()
        shop.up(runtimes)
        print(f"{runtimes}: {time.monotonic() - begun:.1f} s")
        rows = shop.healthy()
        assert {name: row["Runtime"] for name, row in rows.items()} == runtimes
        anew = {name for name in SERVICES if rows[name]["ID"] != before.get(name, {}).get("ID")}
        assert anew == changed, "other services were recreated than those that changed"
        before = rows

        orders.append(shop.order())
        assert shop.row(orders[-1]) == f"paid|{PAID_CENTS}|mug|2"
        earlier = orders[len(orders) // 2]
        answer = shop.find(earlier)
        assert (answer["id"], answer["status"]) == (earlier, "paid")
        for name in changed:
            shop.names(name)
        if all(bits):
            _engine_dies(shop, rows)


def _engine_dies(shop: Shop, before: dict[str, dict[str, Any]]) -> None:
    """kill -9 of the engine: services answer without it, and are adopted by the next one."""
    logged = shop.logged()
    shop.engine.kill_hard()
    order = shop.order()
    shop.engine.start()
    after = shop.healthy()
    assert {name: row["ID"] for name, row in after.items()} == {
        name: row["ID"] for name, row in before.items()
    }
    assert shop.row(order) == f"paid|{PAID_CENTS}|mug|2"
    assert shop.logged() > logged, "output is missing from the log"
