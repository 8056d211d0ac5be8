"""Tables in narrow terminals."""

from __future__ import annotations

import pytest

from gemel.cli.commands.ps import COLUMNS, SPARE
from gemel.cli.fit import Spare, fitted, shortened, width_of
from gemel.cli.output import table

ROWS = [
    {
        "Name": f"shop-payments-{n}",
        "Image": "registry.example/team/payments:1.24.0-alpine",
        "RuntimeShown": "container (auto)",
        "Service": "payments",
        "Status": "Up About a minute (health: starting)",
        "Address": "10.89.0.12, 10.89.1.12",
        "Ports": "127.0.0.1:18080->8080/tcp, 127.0.0.1:18443->8443/tcp",
    }
    for n in (1, 2)
]
MEASURES = [Spare(key, width) for key, width in SPARE]


@pytest.mark.parametrize("width", [60, 80, 100, 132])
def test_it_fits(width: int) -> None:
    rows, columns = fitted(ROWS, COLUMNS, MEASURES, width)
    assert width_of(table(rows, columns)) <= width
    kept = [key for _, key in columns]
    assert {"Name", "RuntimeShown", "Status"} <= set(kept)


def test_a_wide_terminal_shows_all() -> None:
    assert fitted(ROWS, COLUMNS, MEASURES, 500) == (ROWS, COLUMNS)
    assert ROWS[0]["Ports"].endswith("8443/tcp")  # the rows that were given are as they were


def test_shortened() -> None:
    assert [shortened("abcdef", n) for n in (6, 5, 2)] == ["abcdef", "abcd…", "a…"]
