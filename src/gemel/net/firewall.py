"""Carries rulesets into the kernel with nft. One table is the engine's; no other is touched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import NamedTuple

from gemel.errors import Failed, GemelError, Unavailable
from gemel.host import run
from gemel.model.network import NetworkInfo, PublishedPort
from gemel.net import balance, rules

log = logging.getLogger("gemel.net")


class Wanted(NamedTuple):
    """What the table is to hold."""

    networks: tuple[NetworkInfo, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    shared: balance.Plan = balance.Plan()


class Firewall:
    """The engine's nftables table. Changes that wait for each other are carried out at once."""

    def __init__(self, table: str, allow_private: bool) -> None:
        self._table = table
        self._shared_table = f"{table}-lb"
        self._allow_private = allow_private
        self._lock = asyncio.Lock()
        self._wanted = Wanted()
        self._applied: Wanted | None = None

    async def apply(self, wanted: Wanted, *, anew: bool = False) -> None:
        """Brings the table to ``wanted`` in one transaction (the latest one's, if several wait).

        anew: replace the chains too, whatever is there. Raises Failed, Unavailable.
        """
        self._wanted = wanted
        async with self._lock:
            if self._wanted == self._applied and not anew:
                return
            target, before = self._wanted, self._applied
            await self._load(target, before, whole=anew or before is None)
            self._applied = target
        if before is not None:  # else they are those of an earlier engine: as they should be
            await self._forget_flows(before.ports, target.ports)
            await _end_flows(balance.forgotten(before.shared, target.shared))

    async def _load(self, target: Wanted, before: Wanted | None, *, whole: bool) -> None:
        shared = balance.ruleset(self._shared_table, target.shared)
        if not whole:
            text = rules.elements(self._table, target.networks, target.ports)
            if before is not None and target.shared != before.shared:
                text += shared
            try:
                return await load(text)
            except Failed as error:  # somebody has removed the table: nft flush ruleset
                log.warning("the firewall's table is made anew: %s", error.details)
        await load(
            rules.ruleset(
                self._table, target.networks, target.ports, allow_private=self._allow_private
            )
            + shared
        )

    async def _forget_flows(
        self, before: Iterable[PublishedPort], after: Iterable[PublishedPort]
    ) -> None:
        """Ends the UDP flows to ports that changed: the kernel would lead them on as before."""
        changed = {
            port.host_port
            for port in set(map(_essence, before)) ^ set(map(_essence, after))
            if port.protocol == "udp"
        }
        await _end_flows(
            [["-D", "-p", "udp", "--orig-port-dst", str(number)] for number in sorted(changed)]
        )

    async def remove(self) -> None:
        """Removes the table. Idempotent."""
        async with self._lock:
            self._applied = None
            await load(rules.removal(self._table) + balance.removal(self._shared_table))


async def _end_flows(orders: list[list[str]]) -> None:
    """Carries orders to conntrack out. What fails is logged."""
    conntrack = run.find("conntrack") if orders else None
    if conntrack is None:
        return
    for order in orders:
        try:
            await run.run([conntrack, *order], timeout=10, check=False)
        except GemelError as error:
            log.warning("%s", error)


def _essence(port: PublishedPort) -> PublishedPort:
    return PublishedPort(
        host_ip=port.host_ip or "0.0.0.0",
        host_port=port.host_port,
        protocol=port.protocol,
        address=port.address,
        port=port.port,
    )


def program() -> str:
    """Path of nft. Raises Unavailable."""
    found = run.find("nft")
    if found is None:
        raise Unavailable(
            "nft is not installed",
            details="published ports and the isolation of networks need it",
            resolution="apt install nftables",
        )
    return found


async def load(text: str) -> None:
    """Carries a text out in one transaction. Raises Failed, Unavailable."""
    await run.run([program(), "-f", "-"], input=text.encode(), timeout=20)
