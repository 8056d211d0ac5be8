"""Names of links and MAC addresses. Pure; the same input always gives the same name."""

from __future__ import annotations

import ipaddress

#: What every bridge of every gemel engine begins with (firewall rules match it).
BRIDGE_PREFIX = "gm-"
#: What a bridge's ports begin with.
PORT_PREFIX = "gp"


def bridge_name(network_id: str) -> str:
    """Name of a network's bridge: 13 characters (the kernel allows 15)."""
    return BRIDGE_PREFIX + network_id[:10]


def port_prefix(instance_id: str) -> str:
    """What the names of all ports of an instance begin with."""
    return f"{PORT_PREFIX}{instance_id[:10]}-"


def port_name(instance_id: str, n: int) -> str:
    """Name of the host's end of an instance's n-th interface, n from 0 to 99."""
    if not 0 <= n <= 99:
        raise ValueError(f"interface number {n} is out of range")
    return f"{port_prefix(instance_id)}{n}"


def mac_for(address: str) -> str:
    """MAC address for an IPv4 address, as Docker has it: 02:42 and its four bytes.

    So an address that passes to another instance leaves no neighbour's cache wrong.
    """
    raw = ipaddress.IPv4Address(address.split("/")[0]).packed
    return (b"\x02\x42" + raw).hex(":")
