from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemel.host import run
from gemel.model.network import NetworkInfo, PublishedPort
from gemel.net.rules import elements, removal, ruleset

GOLDEN = Path(__file__).parents[2] / "golden"

NETWORKS = [
    NetworkInfo(id="b" * 64, name="b", bridge="gm-b", subnet="10.89.1.0/24", gateway="10.89.1.1"),
    NetworkInfo(
        id="a" * 64,
        name="a",
        bridge="gm-a",
        subnet="10.89.0.0/24",
        gateway="10.89.0.1",
        internal=True,
    ),
]


def port(host_ip: str, host_port: int, protocol: str, address: str, to: int) -> PublishedPort:
    return PublishedPort(
        host_ip=host_ip, host_port=host_port, protocol=protocol, address=address, port=to
    )


PORTS = [
    port("0.0.0.0", 8080, "tcp", "10.89.1.2", 80),
    port("127.0.0.1", 8080, "udp", "10.89.1.3", 53),
    port("", 8080, "tcp", "10.89.1.9", 80),  # claimed twice: the first one has it
]


def golden(name: str, text: str) -> None:
    """Compares with the file; GOLDEN=write makes it anew."""
    path = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


def test_whole_table() -> None:
    golden("firewall.nft", ruleset("gemel-0", NETWORKS, PORTS))


def test_change_of_elements() -> None:
    golden("firewall-elements.nft", elements("gemel-0", NETWORKS[:1], PORTS[1:2]))


def test_private_ranges_may_be_allowed() -> None:
    closed = ruleset("t", NETWORKS, PORTS).splitlines()
    opened = ruleset("t", NETWORKS, PORTS, allow_private=True).splitlines()
    assert [line.strip() for line in closed if line not in opened] == ["ip daddr @private drop"]


def test_only_the_own_table_is_named() -> None:
    for text in (ruleset("mine", NETWORKS, PORTS), elements("mine", [], []), removal("mine")):
        for line in text.splitlines():
            words = line.split()
            if line and not line.startswith((" ", "}")):
                assert "mine" in words and "ip" in words


@pytest.mark.root
async def test_nft_takes_it() -> None:
    whole = ruleset("gemel-t", NETWORKS, PORTS)
    for text in (
        whole,
        elements("gemel-t", NETWORKS[:1], []),
        elements("gemel-t", [], []),
        whole,
        removal("gemel-t"),
    ):
        await run.run(["nft", "-f", "-"], input=text.encode())
