"""Other firewalls of the host: what in them would stop instances, and a way through.

A packet must pass every table. Docker sets the policy of iptables' FORWARD chain
to DROP, ufw that of INPUT too, so beside them nothing of gemel's would be
forwarded and no name resolved. Where iptables has such a policy, gemel puts
rules of its own at the head of the chain that let its bridges' packets pass
(its own table has judged them then); they bear the engine's name as a comment
and go with it. Nothing of others is changed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from gemel.errors import GemelError
from gemel.host import run
from gemel.net.names import BRIDGE_PREFIX

log = logging.getLogger("gemel.net")

_ANY = BRIDGE_PREFIX + "+"

#: Rules for each chain, as iptables -S prints them.
_RULES: dict[str, tuple[tuple[str, ...], ...]] = {
    "FORWARD": (("-i", _ANY), ("-o", _ANY)),
    "INPUT": (
        ("-i", _ANY, "-p", "udp", "-m", "udp", "--dport", "53"),
        ("-i", _ANY, "-p", "tcp", "-m", "tcp", "--dport", "53"),
    ),
}


def _rule(chain: str, match: Sequence[str], owner: str) -> list[str]:
    return [chain, *match, "-m", "comment", "--comment", owner, "-j", "ACCEPT"]


def missing(listing: str, owner: str) -> list[list[str]]:
    """Rules to insert, given the output of ``iptables -S``. Pure."""
    lines = [line.replace('"', "") for line in listing.splitlines()]
    wanted = []
    for chain, matches in _RULES.items():
        if f"-P {chain} DROP" in lines:
            rules = [_rule(chain, match, owner) for match in matches]
            wanted += [rule for rule in rules if " ".join(["-A", *rule]) not in lines]
    return wanted


def own(listing: str, owner: str) -> list[list[str]]:
    """The engine's rules in the output of ``iptables -S``. Pure."""
    words = [line.replace('"', "").split() for line in listing.splitlines()]
    return [line[1:] for line in words if line[:1] == ["-A"] and owner in line]


async def _listing() -> tuple[str, str]:
    """The iptables program and what it lists; empty without it."""
    program = run.find("iptables")
    if program is None:
        return "", ""
    result = await run.run([program, "-w", "5", "-S"], timeout=10, check=False)
    return program, result.stdout.decode("utf-8", "replace")


async def let_pass(owner: str) -> None:
    """Inserts what is missing. Idempotent; what fails is logged, and ``findings`` tells it."""
    program, listing = await _listing()
    for rule in missing(listing, owner):
        log.warning("iptables drops by default in %s: adding %s", rule[0], " ".join(rule))
        try:
            await run.run([program, "-w", "5", "-I", *rule], timeout=10)
        except GemelError as error:
            log.error("%s", error)


async def withdraw(owner: str) -> None:
    """Removes the engine's rules. Idempotent."""
    program, listing = await _listing()
    for rule in own(listing, owner):
        await run.run([program, "-w", "5", "-D", *rule], timeout=10, check=False)


async def obstacles(nft: str, owner: str) -> list[tuple[str, str]]:
    """What may still stop instances: description and remedy."""
    found = []
    _, listing = await _listing()
    if missing(listing, owner):
        found.append(
            (
                "iptables drops by default and gemel's rules are not in it",
                "start the engine anew, or: iptables -I FORWARD -i 'gm-+' -j ACCEPT; "
                "iptables -I FORWARD -o 'gm-+' -j ACCEPT",
            )
        )
    result = await run.run([nft, "-j", "list", "chains"], timeout=10, check=False)
    try:
        chains: list[dict[str, Any]] = json.loads(result.stdout or b"{}").get("nftables", [])
    except ValueError:
        chains = []
    for chain in (entry["chain"] for entry in chains if "chain" in entry):
        table = f"{chain.get('family')} {chain.get('table')}"
        if table in ("ip filter", f"ip {owner}", "ip6 filter"):
            continue
        hook = chain.get("hook")
        if hook in ("forward", "input") and chain.get("policy") == "drop":
            found.append(
                (
                    f"the {hook} chain of the nftables table {table} drops by default",
                    f"nft insert rule {table} {chain.get('name')} iifname 'gm-*' accept",
                )
            )
        elif chain.get("table") == "firewalld" and chain.get("name") == "filter_INPUT":
            found.append(
                (
                    "firewalld rejects what no zone allows, names of instances too",
                    "firewall-cmd --permanent --zone=trusted --add-source=10.89.0.0/16 "
                    "&& firewall-cmd --reload",
                )
            )
    return found
