"""Networks and what is attached to them."""

from __future__ import annotations

import msgspec


class NetworkInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A network. id: 64 hexadecimal digits; bridge: the name of its bridge on the host."""

    id: str
    name: str
    bridge: str
    subnet: str
    """CIDR."""
    gateway: str
    ip_range: str = ""
    driver: str = "bridge"
    internal: bool = False
    """No way out: neither masqueraded nor forwarded beyond the bridge."""
    attachable: bool = False
    isolate: bool = True
    mtu: int = 1500
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    aux: dict[str, str] = {}
    ipam_options: dict[str, str] = {}
    """Shown as they were given; the one way of choosing addresses takes none."""
    created: str = ""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An instance's place on a network.

    names: everything it is found under on this network (container name, its
    short id, service name, aliases, host name), without a domain.
    """

    network_id: str
    instance_id: str
    address: str
    """Without prefix length."""
    mac: str
    names: tuple[str, ...] = ()
    ready: bool = True
    """False takes it out of shared names (a replica that is not healthy)."""
    dns: tuple[str, ...] = ()
    """Name servers that this instance's outside names are asked at; empty: the host's."""
    links: tuple[tuple[str, str], ...] = ()
    """Names that this instance alone has for others: (its name for it, the other's name)."""


class PublishedPort(msgspec.Struct, frozen=True, kw_only=True):
    """host_ip:host_port/protocol on the host leads to address:port."""

    host_ip: str
    """``0.0.0.0`` for all addresses, or one IPv4 address of the host."""
    host_port: int
    protocol: str
    """tcp or udp."""
    address: str
    port: int
    instance_id: str = ""
    bridge: str = ""


class Balanced(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual address: a name that several instances have leads to their ready ones by it."""

    network_id: str
    name: str
    """In lower case."""
    address: str
    instances: tuple[str, ...] = ()
    """Ids."""
