"""Faults between instances: rules of a table of their own in the bridge family.

Instances of one network reach each other through its bridge, which only tables
of that family see. What a fault concerns are elements of a set that time out by
themselves: it ends even if the engine is dead by then.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gemel.net import firewall


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A fault as the kernel is to hold it. pairs: addresses from, to; left: seconds, 0 for ever.

    loss: share of packets that are dropped, 1 for all; rate: bits per second, 0 for any.
    """

    number: int
    pairs: tuple[tuple[str, str], ...]
    loss: float = 0.0
    rate: int = 0
    left: float = 0.0


def ruleset(table: str, rules: Sequence[Rule]) -> str:
    """Text for ``nft -f -``: replaces the whole table; removes it if there are no rules. Pure."""
    rules = [rule for rule in rules if rule.pairs]
    if not rules:
        return removal(table)
    sets = [line for rule in rules for line in _set(rule)]
    lines = [line for rule in rules for line in _lines(rule)]
    # output too: what a proxy answers in the place of an instance comes from the host
    chains = []
    for hook in ("prerouting", "output"):
        chains.append(f"    chain {hook} {{")
        chains.append(f"        type filter hook {hook} priority -310; policy accept;")
        chains += [*lines, "    }"]
    body = [f"table bridge {table} {{", *sets, *chains, "}"]
    return removal(table) + "\n".join(body) + "\n"


def _set(rule: Rule) -> list[str]:
    timeout = f" timeout {max(1, round(rule.left * 1000))}ms" if rule.left else ""
    listed = ", ".join(f"{a} . {b}{timeout}" for a, b in rule.pairs)
    return [
        f"    set edge{rule.number} {{",
        "        type ipv4_addr . ipv4_addr",
        "        flags timeout",
        f"        elements = {{ {listed} }}",
        "    }",
    ]


def _lines(rule: Rule) -> list[str]:
    match = f"        ip saddr . ip daddr @edge{rule.number}"
    if rule.loss >= 1:
        return [f"{match} counter drop"]
    found = []
    if rule.loss > 0:
        share = max(1, round(rule.loss * 10000))
        found.append(f"{match} numgen random mod 10000 < {share} counter drop")
    if rule.rate:
        speed = max(1, rule.rate // 8)
        # what is sent at once may be a segment of 64 KiB: it must fit, or nothing would pass
        burst = min(
            max(131072, speed // 4), 1 << 30
        )  # rate and burst times 1e9 must fit the kernel
        found.append(
            f"{match} limit rate over {speed} bytes/second burst {burst} bytes counter drop"
        )
    return found


def removal(table: str) -> str:
    """Removes the table, whether it is there or not. Pure."""
    return f"table bridge {table} {{}}\ndelete table bridge {table}\n"


async def apply(table: str, rules: Sequence[Rule]) -> None:
    """Brings the kernel to ``rules`` in one transaction. Raises Failed, Unavailable."""
    await firewall.load(ruleset(table, rules))
