"""Bridges and their ports. All calls block (under 2 ms, removals some 40): use a thread.

Every link that an engine makes bears the engine's name as its alias, so that it
finds its own again and leaves all others alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from gemel.errors import Conflict, NotFound
from gemel.host import namespaces, netlink
from gemel.host.netlink import Link, Netlink
from gemel.model.instance import Interface
from gemel.model.network import NetworkInfo
from gemel.net.names import PORT_PREFIX, mac_for

#: Set in every namespace, as Docker does: no address that nobody asked for, ping and low ports
#: without privileges.
NAMESPACE_SYSCTLS = (
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ping_group_range", "0\t2147483647"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
)


def _find(kernel: Netlink, name: str) -> Link | None:
    return next((link for link in kernel.links() if link.name == name), None)


def ensure_bridge(network: NetworkInfo, alias: str) -> None:
    """Brings a network's bridge to what is wanted; one that is right is not touched.

    Raises Conflict if a link of that name is not this engine's, Failed.
    """
    with Netlink() as kernel:
        bridge = _find(kernel, network.bridge)
        if bridge is None:
            kernel.send(
                *netlink.add_bridge(network.bridge, mac_for(network.gateway), network.mtu, alias)
            )
            bridge = _find(kernel, network.bridge)
            assert bridge is not None
        elif bridge.type != "bridge" or bridge.alias not in ("", alias):
            raise Conflict(
                f"the interface {network.bridge} exists and is not this engine's",
                details=f"kind {bridge.type}, alias {bridge.alias!r}",
                resolution=f"remove it: ip link delete {network.bridge}",
            )
        prefix = IPv4Network(network.subnet).prefixlen
        messages = [netlink.add_address(bridge.number, network.gateway, prefix)]
        if not bridge.up:
            messages.append(netlink.set_up(bridge.number))
        kernel.send(*messages)
    # published ports of 127.0.0.1 leave by the bridge with that source; the firewall guards it
    namespaces.set_sysctl(f"net.ipv4.conf.{network.bridge}.route_localnet", "1")
    namespaces.set_sysctl(f"net.ipv6.conf.{network.bridge}.disable_ipv6", "1")


def remove(*names: str) -> None:
    """Removes links; those that are not there are fine."""
    if names:
        with Netlink() as kernel:
            kernel.send(*(netlink.delete_link(name) for name in names))


def own(alias: str) -> list[Link]:
    """All links that bear the engine's name."""
    with Netlink() as kernel:
        return [link for link in kernel.links() if link.alias == alias]


def unwanted(links: Sequence[Link], bridges: Collection[str], ports: Collection[str]) -> list[str]:
    """Names of those links of the engine that are neither a wanted bridge nor a wanted port.

    ports: prefixes of the ports' names, one for each instance.
    """
    return [
        link.name
        for link in links
        if link.name not in bridges
        and not (link.name.startswith(PORT_PREFIX) and link.name.rpartition("-")[0] + "-" in ports)
    ]


def connect(namespace: Path | None, iface: Interface, alias: str) -> None:
    """Makes an interface: a veth pair into ``namespace``, or a tap without one.

    Idempotent: a port of that name from before is replaced (a tap is kept, a
    micro VM may have it open). Raises NotFound (no such bridge), Failed; nothing
    is left then.
    """
    bridge = _number(iface.bridge)
    if not bridge:
        raise NotFound(f"the bridge {iface.bridge} does not exist")
    with Netlink() as kernel:
        try:
            if namespace is None:
                namespaces.add_tap(iface.host)
                kernel.send(*netlink.set_port(iface.host, bridge, alias, iface.mtu))
                return
            if _number(iface.host):
                kernel.send(netlink.delete_link(iface.host))
            _veth(kernel, namespace, iface, bridge, alias)
        except BaseException:
            kernel.send(netlink.delete_link(iface.host))
            raise


def _number(name: str) -> int:
    """Index of a link; 0 if there is none. (A list of all would take longer with each instance.)"""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _veth(kernel: Netlink, namespace: Path, iface: Interface, bridge: int, alias: str) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.send(
            *netlink.add_veth(iface.host, iface.name, fd, iface.mac, bridge, iface.mtu, alias)
        )
    finally:
        os.close(fd)
    namespaces.inside(namespace, lambda: _configure(iface))


def _configure(iface: Interface) -> None:
    """Inside the namespace: address, up, default route."""
    index = socket.if_nametoindex(iface.name)
    address, _, prefix = iface.address.partition("/")
    messages = [netlink.add_address(index, address, int(prefix)), netlink.set_up(index)]
    if iface.default_route and iface.gateway:
        messages.append(netlink.add_default_route(index, iface.gateway))
    with Netlink() as kernel:
        kernel.send(*messages)


def reroute(namespace: Path, interfaces: Sequence[Interface]) -> None:
    """Adds the default route of the interface that should have it, if there is none."""

    def work() -> None:
        with Netlink() as kernel:
            for iface in interfaces:
                if iface.default_route and iface.gateway:
                    index = socket.if_nametoindex(iface.name)
                    kernel.send(netlink.add_default_route(index, iface.gateway))

    namespaces.inside(namespace, work)


def taken_ranges(ignore: Collection[str]) -> list[str]:
    """CIDRs that the host has addresses in or routes to, but for those of links in ``ignore``."""
    with Netlink() as kernel:
        mine = {link.number for link in kernel.links() if link.name in ignore}
        own_networks = {
            str(IPv4Network(f"{address}/{prefix}", strict=False))
            for index, address, prefix in kernel.addresses()
            if index in mine
        }
        routes = {f"{address}/{prefix}" for address, prefix in kernel.routes()}
    return sorted(
        route
        for route in routes
        if not any(IPv4Network(route).subnet_of(IPv4Network(network)) for network in own_networks)
    )
