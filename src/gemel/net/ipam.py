"""Which subnet a network gets, and which address an instance. Pure."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from gemel.errors import Conflict, InvalidInput, Unavailable, Unsupported
from gemel.model.network import NetworkInfo

Pool = tuple[str, int]

#: Where networks without a subnet of their own are put: a range, and the prefix length in it.
DEFAULT_POOLS: tuple[Pool, ...] = (
    ("10.89.0.0/16", 24),
    ("10.201.0.0/16", 24),
    ("192.168.128.0/17", 24),
)


def parse_subnet(text: str) -> IPv4Network:
    """A subnet from a user's text. Raises InvalidInput, Unsupported for IPv6."""
    if ":" in text:
        raise Unsupported(
            f"the subnet {text} is one of IPv6, and networks are IPv4",
            resolution="leave it out, or name an IPv4 subnet",
        )
    try:
        subnet = ipaddress.IPv4Network(text, strict=True)
    except ValueError as error:
        raise InvalidInput(
            f"invalid subnet {text}: invalid CIDR block notation",
            details=str(error),
            resolution="write it as 10.100.0.0/24 (IPv4; the address of the network itself)",
        ) from None
    if subnet.prefixlen > 30:
        raise InvalidInput(f"subnet {text} is too small", resolution="use /30 or larger")
    return subnet


def parse_address(text: str, subnet: IPv4Network | None = None, what: str = "address") -> str:
    """An IPv4 address from a user's text, of ``subnet`` if given. Raises InvalidInput."""
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise InvalidInput(f"invalid {what} {text}", details=str(error)) from None
    if subnet is not None and address not in subnet:
        raise InvalidInput(f"invalid {what} {text}: it does not belong to the subnet {subnet}")
    if subnet is not None and address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidInput(f"invalid {what} {text}: it is the subnet's own")
    return str(address)


def allocate_subnet(
    existing: Sequence[NetworkInfo],
    taken: Iterable[str] = (),
    pools: Sequence[Pool] = DEFAULT_POOLS,
) -> tuple[str, str]:
    """The first free subnet of the pools, and its gateway (its first address).

    taken: CIDRs of the host (routes, name servers) to keep clear of. Raises
    Unavailable if all pools are used up.
    """
    used = [IPv4Network(network.subnet) for network in existing]
    used += [IPv4Network(cidr, strict=False) for cidr in taken]
    for base, prefix in pools:
        pool = IPv4Network(base)
        near = [network for network in used if network.overlaps(pool)]
        for subnet in pool.subnets(new_prefix=prefix):
            if not any(subnet.overlaps(other) for other in near):
                return str(subnet), str(subnet.network_address + 1)
    raise Unavailable(
        "could not find an available, non-overlapping IPv4 address pool among the defaults"
        " to assign to the network",
        resolution="remove networks that are not used (network prune), or give it a subnet",
    )


def check_subnet(
    subnet: str,
    gateway: str,
    ip_range: str,
    existing: Sequence[NetworkInfo],
    taken: Iterable[str] = (),
) -> tuple[str, str]:
    """A subnet that a user asks for, checked; gives it back with its gateway.

    gateway, ip_range: may be empty. Raises InvalidInput, or Conflict if it
    overlaps with a network or with what the host routes elsewhere.
    """
    wanted = parse_subnet(subnet)
    for network in existing:
        if IPv4Network(network.subnet).overlaps(wanted):
            raise Conflict(
                "Pool overlaps with other one on this address space",
                details=f"{subnet} overlaps with {network.subnet} of the network {network.name}",
                resolution="choose another subnet, or none",
            )
    for cidr in taken:
        if IPv4Network(cidr, strict=False).overlaps(wanted):
            raise Conflict(
                "Pool overlaps with other one on this address space",
                details=f"the host itself has a route or a name server in {cidr}",
                resolution="choose another subnet, or none",
            )
    if ip_range and not parse_range(ip_range).subnet_of(wanted):
        raise InvalidInput(f"the IP range {ip_range} does not belong to the subnet {subnet}")
    first = str(wanted.network_address + 1)
    return str(wanted), parse_address(gateway, wanted, "gateway") if gateway else first


def parse_range(text: str) -> IPv4Network:
    """The part of a subnet that addresses are given from. Raises InvalidInput."""
    try:
        return IPv4Network(text, strict=False)
    except ValueError as error:
        raise InvalidInput(f"invalid IP range {text}", details=str(error)) from None


def allocate_address(
    network: NetworkInfo, used: Collection[str], wanted: str = "", after: str = ""
) -> str:
    """An address of ``network`` that is not among ``used``, without prefix length.

    wanted: the one that the user asks for. after: the address given last; the
    next free one behind it is taken, so that an address which became free is
    not at once another's (a client may still hold the old answer). Raises
    InvalidInput, Conflict (taken), Unavailable (none left).
    """
    subnet = IPv4Network(network.subnet)
    reserved = {str(subnet.network_address), str(subnet.broadcast_address), network.gateway}
    reserved |= set(network.aux.values())
    if wanted:
        address = parse_address(wanted, subnet)
        if address in used or address in reserved:
            raise Conflict(
                "Address already in use",
                details=f"{address} of the network {network.name} belongs to another",
                resolution="choose another address, or none",
            )
        return address
    space = parse_range(network.ip_range) if network.ip_range else subnet
    size = space.num_addresses
    begin = int(space.network_address)
    start = int(IPv4Address(after)) - begin + 1 if after and IPv4Address(after) in space else 0
    for offset in itertools.chain(range(start, size), range(start)):
        address = str(IPv4Address(begin + offset))
        if address not in reserved and address not in used:
            return address
    raise Unavailable(
        f"no available IPv4 addresses on the network {network.name}",
        details=f"all of {space} are in use",
        resolution="remove containers, or make a network with a larger subnet",
    )
