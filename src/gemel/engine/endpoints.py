"""A container's places on networks, and the network of those that name none."""

from __future__ import annotations

import secrets

from gemel.engine import balancing
from gemel.engine.core import Core
from gemel.engine.records import Container, EndpointRecord, now
from gemel.errors import Conflict, GemelError, InvalidInput
from gemel.model.docker import EndpointSettings, HostConfig, NetworkCreate
from gemel.model.network import NetworkInfo

#: Name of the network of containers that name none.
DEFAULT = "bridge"


async def default_network(core: Core) -> NetworkInfo:
    """The network of containers that name none; made at its first use."""
    for network in core.networks.values():
        if network.name == DEFAULT:
            return network
    return await make(core, NetworkCreate(name=DEFAULT))


async def make(core: Core, request: NetworkCreate) -> NetworkInfo:
    pools = (request.ipam.config if request.ipam else None) or []
    pool = pools[0] if pools else None
    if pool and pool.subnet:
        subnet, gateway = core.net.check_subnet(
            pool.subnet, pool.gateway, pool.ip_range, list(core.networks.values())
        )
    else:
        subnet, gateway = core.net.allocate_subnet(list(core.networks.values()))
    id = secrets.token_hex(32)
    options = request.options or {}
    mtu = options.get("com.docker.network.driver.mtu", "1500")
    if not mtu.isdigit() or not 576 <= int(mtu) <= 65535:
        raise InvalidInput(f"invalid MTU: {mtu}")
    info = NetworkInfo(
        id=id,
        name=request.name,
        bridge=core.net.bridge_name(id),
        subnet=subnet,
        gateway=gateway,
        ip_range=(pool.ip_range if pool else "") or "",
        internal=request.internal,
        attachable=request.attachable,
        mtu=int(mtu),
        labels=request.labels or {},
        options=options,
        ipam_options=(request.ipam.options if request.ipam else None) or {},
        aux=(pool.auxiliary_addresses if pool else None) or {},
        created=now(),
    )
    core.networks[id] = info  # its range is taken from here on
    try:
        await core.net.create_network(info)
        await core.store.put("network", id, info)
    except BaseException:
        core.networks.pop(id, None)
        raise
    core.events.emit("network", "create", id, {"name": info.name, "type": "bridge"})
    return info


async def endpoints(core: Core, one: Container) -> list[EndpointRecord]:
    """The places on networks that the request names, with addresses. Raises NotFound, Conflict."""
    host = one.request.host_config or HostConfig()
    mode = host.network_mode
    if mode in ("host", "none") or one.request.network_disabled:
        return []
    if mode.startswith("container:"):
        core.container(mode.partition(":")[2])
        return []
    config = (
        (one.request.networking_config.endpoints_config or {})
        if (one.request.networking_config)
        else {}
    )
    wanted: dict[str, EndpointSettings] = {}
    if mode in ("", "default", "bridge"):
        first = await default_network(core)
    else:
        first = core.network(mode)
    wanted[first.id] = EndpointSettings()
    for ref, settings in config.items():
        network = first if ref in ("default", mode) else await _network(core, ref)
        wanted[network.id] = settings or EndpointSettings()
    order = sorted(wanted.items(), key=lambda kv: (-kv[1].gw_priority, kv[0] != first.id))
    result: list[EndpointRecord] = []
    for index, (network_id, settings) in enumerate(order):
        result.append(place(core, one, core.networks[network_id], settings, index))
    return result


def _asked(end: EndpointRecord) -> str:
    return end.settings.ipam_config.ipv4_address if end.settings.ipam_config else ""


def _fixed(core: Core, network_id: str, address: str) -> list[Container]:
    """The containers that have asked for an address themselves. As with dockerd any number may:
    one that takes another's place is made before that one goes. They cannot run at once.
    """
    return [
        one
        for one in core.containers.values()
        if any(e.network_id == network_id and _asked(e) == address for e in one.endpoints)
    ]


def check_fixed(core: Core, one: Container) -> None:
    """Before a start. Raises Conflict if a running container has a fixed address of this one."""
    for end in one.endpoints:
        for other in _fixed(core, end.network_id, end.address) if _asked(end) else ():
            if other is not one and other.state.running:
                raise Conflict(
                    f"Address already in use: {end.address}",
                    details=f"on network {end.network_name}, by container {other.name}",
                    resolution=f"stop {other.name}, or give one of them another address",
                )


async def _network(core: Core, ref: str) -> NetworkInfo:
    return await default_network(core) if ref == "bridge" else core.network(ref)


def place(
    core: Core, one: Container, network: NetworkInfo, settings: EndpointSettings, index: int
) -> EndpointRecord:
    """An address on a network for a container. Raises Conflict, InvalidInput."""
    asked = settings.ipam_config.ipv4_address if settings.ipam_config else ""
    if asked:
        balancing.yield_address(core, network, asked)
    used = core.addresses_used(network)
    if asked and _fixed(core, network.id, asked):
        used = used - {asked}
    try:
        address = core.net.allocate_address(network, used, asked)
    except GemelError:
        if asked and asked in used:
            raise Conflict(
                f"Address already in use: {asked}", details=f"on network {network.name}"
            ) from None
        raise
    core.promised.add((network.id, address))
    return EndpointRecord(
        network_id=network.id,
        network_name=network.name,
        settings=settings,
        endpoint_id=secrets.token_hex(32),
        address=address,
        mac=settings.mac_address or one.request.mac_address or core.net.mac_for(address),
        index=index,
    )
