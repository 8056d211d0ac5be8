"""Leads TCP connections between two instances to a port of the host, by nftables.

Instances of one network reach each other through its bridge, past the tables of family ip. So a
table of family bridge hands the frames of such connections to the host (as ebtables' redirect
does: its own hardware address, packet type host), and one of family ip redirects them. What is
begun is remembered, so that a connection goes the same way to its end, also when the fault has
ended meanwhile. Elements time out: unless they are set anew, the edge is free within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gemel.net import firewall

#: Seconds in which an edge is free again if nobody sets it anew.
HOLD = 6
#: Seconds for which a connection without a packet is remembered.
IDLE = 120


class Diverted(msgspec.Struct, frozen=True, kw_only=True):
    """An edge. pairs: for each bridge's hardware address, addresses from, to. port: of the
    target, 0 for all. to: port of the host."""

    number: int
    pairs: Mapping[str, tuple[tuple[str, str], ...]]
    to: int
    port: int = 0
    left: float = 0.0
    """Seconds, 0 for ever."""


def _name(mac: str) -> str:
    return mac.replace(":", "")


def ruleset(table: str, edges: Sequence[Diverted]) -> str:
    """Text for ``nft -f -``: brings both tables to ``edges``; connections that it knows stay.
    Pure."""
    lines = [
        f"add table bridge {table}",
        f"add chain bridge {table} divert "
        "{ type filter hook prerouting priority -300; policy accept; }",
        f"flush chain bridge {table} divert",
        f"add table ip {table}",
        f"add chain ip {table} divert {{ type nat hook prerouting priority -102; policy accept; }}",
        f"flush chain ip {table} divert",
    ]
    macs = sorted({mac for edge in edges for mac in edge.pairs})
    for mac in macs:
        lines.append(
            f"add set bridge {table} known_{_name(mac)} "
            "{ type ipv4_addr . inet_service . ipv4_addr . inet_service; "
            f"flags dynamic,timeout; timeout {IDLE}s; size 65536; }}"
        )
    for edge in edges:
        lines += _edge(table, edge)
    for mac in macs:
        known = f"ip saddr . tcp sport . ip daddr . tcp dport @known_{_name(mac)}"
        lines.append(
            f"add rule bridge {table} divert {known} "
            f"update @known_{_name(mac)} {{ ip saddr . tcp sport . ip daddr . tcp dport }} "
            f"meta pkttype set unicast ether daddr set {mac}"
        )
    return "\n".join(lines) + "\n"


def _edge(table: str, edge: Diverted) -> list[str]:
    seconds = min(edge.left or HOLD, HOLD)
    port = f"tcp dport {edge.port} " if edge.port else "meta l4proto tcp "
    lines = []
    every: list[tuple[str, str]] = []
    for mac, pairs in edge.pairs.items():
        every += pairs
        name = f"edge{edge.number}_{_name(mac)}"
        lines += _set("bridge", table, name, pairs, seconds)
        lines.append(
            f"add rule bridge {table} divert ip saddr . ip daddr @{name} {port}"
            f"tcp flags & (syn | ack) == syn update @known_{_name(mac)} "
            "{ ip saddr . tcp sport . ip daddr . tcp dport }"
        )
    name = f"edge{edge.number}"
    lines += _set("ip", table, name, every, seconds)
    lines.append(
        f"add rule ip {table} divert ip saddr . ip daddr @{name} {port}redirect to :{edge.to}"
    )
    return lines


def _set(
    family: str, table: str, name: str, pairs: Sequence[tuple[str, str]], seconds: float
) -> list[str]:
    timeout = f"timeout {max(1, round(seconds * 1000))}ms"
    listed = ", ".join(f"{a} . {b} {timeout}" for a, b in dict.fromkeys(pairs))
    lines = [
        f"add set {family} {table} {name} {{ type ipv4_addr . ipv4_addr; flags timeout; }}",
        f"flush set {family} {table} {name}",
    ]
    if listed:
        lines.append(f"add element {family} {table} {name} {{ {listed} }}")
    return lines


def removal(table: str) -> str:
    """Removes both tables, whether they are there or not. Pure."""
    return "".join(
        f"table {family} {table} {{}}\ndelete table {family} {table}\n"
        for family in ("bridge", "ip")
    )


async def apply(table: str, edges: Sequence[Diverted]) -> None:
    """Brings the kernel to ``edges`` in one transaction. Raises Failed, Unavailable."""
    await firewall.load(ruleset(table, edges))


async def remove(table: str) -> None:
    """Ends all of it, also connections that are on their way. Raises Failed, Unavailable."""
    await firewall.load(removal(table))
