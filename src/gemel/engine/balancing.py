"""Which names have a virtual address, and which.

A name that at least two replicas of a Compose project share on a network (a service's own, or
an alias of several services, whatever their runtimes and states) gets one, from the top of the
subnet. It keeps it until its last instance is removed: whoever has been told the address may
go on using it while the service is scaled. ``deploy.endpoint_mode: dnsrr`` leaves it out.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from gemel.engine.records import Container
from gemel.model.network import Balanced, NetworkInfo

if TYPE_CHECKING:
    from gemel.engine.core import Core

KIND = "balanced"
#: Label that says how a service's name is to be answered: vip or dnsrr.
MODE = "gemel.endpoint-mode"
_COMPOSE = "com.docker.compose."
#: Network, project and name.
Key = tuple[str, str, str]


class Kept(msgspec.Struct, frozen=True):
    """A virtual address as it is kept in the engine's state."""

    key: Key
    address: str


def _labels(one: Container) -> dict[str, str]:
    return one.request.labels or {}


def replica_of(one: Container) -> tuple[str, str] | None:
    """Project and service that a container is a replica of; None if it is of none."""
    labels = _labels(one)
    name = labels.get(_COMPOSE + "service", "")
    if not name or labels.get(_COMPOSE + "oneoff") == "True":
        return None
    return labels.get(_COMPOSE + "project", ""), name


def peers(one: Container, other: Container) -> bool:
    """Whether two containers are replicas of one service."""
    found = replica_of(one)
    return one is not other and found is not None and found == replica_of(other)


def _sharing(core: Core) -> dict[Key, list[Container]]:
    """Who has which name, of those whose names may have a virtual address."""
    found: dict[Key, list[Container]] = {}
    for one in core.containers.values():
        replica = replica_of(one)
        if replica is None or _labels(one).get(MODE) == "dnsrr":
            continue
        for end in one.endpoints:
            for name in dict.fromkeys(end.settings.aliases or ()) if end.address else ():
                if name != one.name:
                    found.setdefault((end.network_id, replica[0], name.lower()), []).append(one)
    return found


def _replicas(members: list[Container]) -> int:
    """While an instance is replaced by another there are two of one number: they count once."""
    number = _COMPOSE + "container-number"
    return len({(replica_of(one), _labels(one).get(number, one.id)) for one in members})


async def refresh(core: Core) -> list[Balanced]:
    """The virtual addresses that there are to be now; new ones are chosen and kept."""
    wanted: list[Balanced] = []
    before = core.virtual
    kept: dict[Key, str] = {}
    for key, members in _sharing(core).items():
        network = core.networks.get(key[0])
        if network is None or (key not in before and _replicas(members) < 2):
            continue
        address = before.get(key, "")
        if not address:
            mine = {other for (id, _, _), other in kept.items() if id == key[0]}
            address = _choose(network, core.addresses_used(network) | mine)
        if address:
            kept[key] = address
            ids = tuple(sorted(member.id for member in members))
            wanted.append(Balanced(network_id=key[0], name=key[2], address=address, instances=ids))
    core.virtual = kept
    gone = ["/".join(key) for key in before.keys() - kept.keys()]
    if gone:
        await core.store.delete(KIND, gone)
    for key in kept.keys() - before.keys():
        await core.store.put(KIND, "/".join(key), Kept(key, kept[key]))
    return wanted


def _choose(network: NetworkInfo, taken: set[str]) -> str:
    """The highest free address of a network; empty if none is left."""
    space = ipaddress.IPv4Network(network.ip_range or network.subnet, strict=False)
    subnet = ipaddress.IPv4Network(network.subnet)
    taken = taken | {network.gateway, str(subnet.network_address), str(subnet.broadcast_address)}
    for number in range(int(space.broadcast_address), int(space.network_address) - 1, -1):
        address = str(ipaddress.IPv4Address(number))
        if address not in taken:
            return address
    return ""


def yield_address(core: Core, network: NetworkInfo, address: str) -> None:
    """Lets an instance have a fixed address that a name has: the name gets another one."""
    for key, other in list(core.virtual.items()):
        if (key[0], other) == (network.id, address):
            del core.virtual[key]


async def load(core: Core) -> None:
    """Takes up what was kept."""
    for one in await core.store.all(KIND, Kept):
        core.virtual[one.key] = one.address


def owned(core: Core, ids: set[str]) -> list[tuple[str, str]]:
    """Network and address of the virtual addresses that lead to none but these containers."""
    return [
        (key[0], core.virtual[key])
        for key, members in _sharing(core).items()
        if key in core.virtual and {member.id for member in members} <= ids
    ]


def shared(core: Core) -> dict[str, tuple[Key, list[Container]]]:
    """Each virtual address with what it is for, and those that it leads to."""
    return {
        core.virtual[key]: (key, members)
        for key, members in _sharing(core).items()
        if key in core.virtual
    }


def led_to(core: Core) -> dict[str, tuple[str, ...]]:
    """By address of an instance, the virtual addresses that lead to it."""
    found: dict[str, tuple[str, ...]] = {}
    for key, members in _sharing(core).items():
        address = core.virtual.get(key)
        for member in members if address else ():
            for end in member.endpoints:
                if address and end.network_id == key[0]:
                    found[end.address] = (*found.get(end.address, ()), address)
    return found
