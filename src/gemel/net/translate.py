"""What virtual addresses need of a bridge: the address, and translation between its ports.

Packets from port to port of a bridge pass the ip hooks, and with them translation, only with
br_netfilter. gemel asks for that bridge by bridge. Where it loads the module itself, other
bridges are left as they were. Calls block for some milliseconds: use a thread.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection
from pathlib import Path

from gemel.errors import GemelError
from gemel.host import namespaces, run
from gemel.host.netlink import Message, Netlink, add_address, call_iptables, delete_address

log = logging.getLogger("gemel.net")

_SWITCHES = Path("/proc/sys/net/bridge")
#: Set to 1 for all bridges when the module is loaded.
_ALL = ("iptables", "ip6tables", "arptables")


async def available() -> bool:
    """Whether bridges can translate; loads br_netfilter if it is not there. Never raises."""
    if _SWITCHES.exists():
        return True
    modprobe = run.find("modprobe")
    if modprobe is None:
        return False
    try:
        await run.run([modprobe, "br_netfilter"], timeout=20, check=False)
    except GemelError as error:
        log.warning("br_netfilter: %s", error)
    if not _SWITCHES.exists():
        return False
    for name in _ALL:
        namespaces.set_sysctl(f"net.bridge.bridge-nf-call-{name}", "0")
    return True


async def possible() -> bool:
    """Whether ``available`` would say so; loads nothing. Never raises."""
    if _SWITCHES.exists():
        return True
    modprobe = run.find("modprobe")
    if modprobe is None:
        return False
    try:
        done = await run.run([modprobe, "-n", "-q", "br_netfilter"], timeout=10, check=False)
    except GemelError:
        return False
    return done.status == 0


def place(bridge: str, addresses: Collection[str]) -> None:
    """Gives a bridge these virtual addresses, and no others. Raises Failed.

    A bridge without any is left to itself by the ip hooks.
    """
    try:
        index = socket.if_nametoindex(bridge)
    except OSError:
        return  # the network has just been removed
    with Netlink() as kernel:
        there = {
            found for number, found, prefix in kernel.addresses() if (number, prefix) == (index, 32)
        }
        messages: list[Message] = [call_iptables(bridge, bool(addresses))]
        messages += [add_address(index, one, 32) for one in sorted(set(addresses) - there)]
        messages += [delete_address(index, one, 32) for one in sorted(there - set(addresses))]
        kernel.send(*messages)
