"""Edges that lead to a proxy: the rules as nft takes them, and the proxy's look-ups."""

from __future__ import annotations

import pytest

from gemel.host import run
from gemel.net import divert, firewall
from gemel.net.divert import Diverted
from gemel.net.faultproxy.protocol import Edge, Edges, Table

MAC = "02:00:0a:00:00:01"
PAIRS = (("10.0.0.1", "10.0.0.2"), ("10.0.0.3", "10.0.0.2"))


def test_an_edge_is_held_for_seconds_only() -> None:
    text = divert.ruleset("t", [Diverted(number=1, pairs={MAC: PAIRS}, to=4444)])
    assert "10.0.0.1 . 10.0.0.2 timeout 6000ms" in text
    assert "redirect to :4444" in text
    short = divert.ruleset("t", [Diverted(number=1, pairs={MAC: PAIRS}, to=1, left=0.5, port=80)])
    assert "timeout 500ms" in short
    assert "tcp dport 80 redirect" in short


@pytest.mark.root
async def test_nft_takes_it_keeps_what_is_known_and_lets_it_go() -> None:
    table = "gemel-test-divert"
    argv = [firewall.program(), "list", "table", "bridge", table]
    try:
        await divert.apply(table, [Diverted(number=1, pairs={MAC: PAIRS}, to=4444)])
        known = f"known_{MAC.replace(':', '')}"
        element = "{ 10.0.0.1 . 1 . 10.0.0.2 . 2 }"
        await firewall.load(f"add element bridge {table} {known} {element}\n")
        # told again, and ended: connections that go on are not forgotten
        for edges in ([Diverted(number=1, pairs={MAC: PAIRS}, to=4444)], []):
            await divert.apply(table, edges)
            shown = (await run.run(argv)).stdout.decode()
            assert "10.0.0.1 . 1 . 10.0.0.2 . 2" in shown
    finally:
        await divert.remove(table)
    assert (await run.run(argv, check=False)).status != 0


def test_the_newest_fault_of_a_kind_counts() -> None:
    table = Table()
    slow = Edge(number=1, pairs=PAIRS, latency=1)
    only = Edge(number=2, pairs=PAIRS, latency=2, port=80)
    wrong = Edge(number=3, pairs=PAIRS, status=503)
    table.set(Edges((slow, only, wrong)))
    assert table.find("10.0.0.1", "10.0.0.2", 80, http=False) is only
    assert table.find("10.0.0.1", "10.0.0.2", 81, http=False) is slow
    assert table.find("10.0.0.1", "10.0.0.2", 81, http=True) is wrong
    assert table.find("10.0.0.2", "10.0.0.1", 81, http=True) is None
    table.set(Edges())
    assert table.find("10.0.0.1", "10.0.0.2", 80, http=False) is None
    assert 0.5 <= Edge(number=1, pairs=(), latency=1, jitter=0.5).delay() <= 1.5
