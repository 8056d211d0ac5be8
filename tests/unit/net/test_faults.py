"""The rules of faults as nft takes them."""

from __future__ import annotations

import pytest

from gemel.host import run
from gemel.net import firewall
from gemel.net.faults import Rule, removal, ruleset

PAIRS = (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"))


def test_text() -> None:
    text = ruleset("t", [Rule(number=1, pairs=PAIRS, loss=0.05, rate=1_000_000, left=1.5)])
    assert "10.0.0.1 . 10.0.0.2 timeout 1500ms" in text
    assert "numgen random mod 10000 < 500 counter drop" in text
    assert "limit rate over 125000 bytes/second burst 131072 bytes counter drop" in text
    assert ruleset("t", []) == ruleset("t", [Rule(number=1, pairs=())]) == removal("t")


@pytest.mark.root
async def test_nft_takes_it_and_lets_it_go() -> None:
    rules = [
        Rule(number=1, pairs=PAIRS, loss=0.05, left=60),
        Rule(number=2, pairs=PAIRS, rate=56_000),
        Rule(number=3, pairs=PAIRS, loss=1),
        Rule(number=4, pairs=PAIRS, rate=10**11, loss=0.00001),
    ]
    await firewall.load(ruleset("gemel-test", rules))
    argv = [firewall.program(), "list", "table", "bridge", "gemel-test"]
    shown = (await run.run(argv)).stdout.decode()
    # what comes in at a port of the bridge, and what the host sends in place of an instance
    assert shown.count("counter packets 0 bytes 0 drop") == 2 * 5
    await firewall.load(ruleset("gemel-test", []))
    assert (await run.run(argv, check=False)).status != 0
