"""Networks of one engine: bridges, namespaces, names, published ports.

Everything that carries traffic is the kernel's or the DNS server's and goes on
without the engine. ``prepare`` brings it to what the engine's state says.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from gemel.errors import GemelError
from gemel.host import mounts, namespaces, ports, run
from gemel.model.instance import Interface
from gemel.model.network import Balanced, Endpoint, NetworkInfo, PublishedPort
from gemel.model.paths import Paths
from gemel.net import balance, ipam, links, names, neighbours, resolv, translate
from gemel.net.firewall import Firewall, Wanted, program
from gemel.net.reserve import Reservations
from gemel.net.resolver import Resolver

log = logging.getLogger("gemel.net")


class Finding(NamedTuple):
    """Something that doctor should tell. status: ok, warning or missing."""

    name: str
    status: str
    details: str
    resolution: str = ""


class NetworkManager:
    """See the module. One per engine; its methods may be called at the same time.

    allow_private: instances may reach private ranges beyond the host (None:
    GEMEL_ALLOW_PRIVATE=1 says so). describe: from an instance's id to words
    that name it in an error. allied: whether two instances may publish one host port.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        allow_private: bool | None = None,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        describe: Callable[[str], str] | None = None,
        allied: Callable[[str, str], bool] | None = None,
    ) -> None:
        if allow_private is None:
            allow_private = os.environ.get("GEMEL_ALLOW_PRIVATE", "") in ("1", "true", "yes")
        self.allow_private = allow_private
        self._paths = paths
        self._alias = paths.cgroup
        self._resolv_conf = resolv_conf
        self._firewall = Firewall(self._alias, allow_private)
        self._resolver = Resolver(paths.run, resolv_conf)
        self._reservations = Reservations(describe, allied)
        self._networks: dict[str, NetworkInfo] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._ports: tuple[PublishedPort, ...] = ()
        self._led: dict[int, int] = {}
        self._foreign: set[tuple[str, int]] = set()
        self._last: dict[str, str] = {}
        self._balanced: tuple[Balanced, ...] = ()
        self._placed: dict[str, frozenset[str]] = {}
        """Virtual addresses by bridge."""
        self._names: asyncio.Task[None] | None = None

    # -- names and addresses, without any effect -----------------------------------------

    bridge_name = staticmethod(names.bridge_name)
    port_name = staticmethod(names.port_name)
    mac_for = staticmethod(names.mac_for)

    def _taken(self, existing: Sequence[NetworkInfo]) -> list[str]:
        servers = resolv.parse(self._resolv_text()).servers
        near = [f"{server}/32" for server in servers if server.count(".") == 3]
        return links.taken_ranges([network.bridge for network in existing]) + near

    def _resolv_text(self) -> str:
        try:
            return self._resolv_conf.read_text(errors="replace")
        except OSError:
            return ""

    def allocate_subnet(
        self,
        existing: Sequence[NetworkInfo],
        pools: Sequence[ipam.Pool] = ipam.DEFAULT_POOLS,
    ) -> tuple[str, str]:
        """A free subnet and its gateway, clear of the host's routes and name servers.

        Raises Unavailable.
        """
        return ipam.allocate_subnet(existing, self._taken(existing), pools)

    def check_subnet(
        self, subnet: str, gateway: str, ip_range: str, existing: Sequence[NetworkInfo]
    ) -> tuple[str, str]:
        """A subnet that a user asks for, and its gateway. Raises InvalidInput, Conflict."""
        return ipam.check_subnet(subnet, gateway, ip_range, existing, self._taken(existing))

    def allocate_address(
        self, network: NetworkInfo, used: Collection[str], wanted: str = ""
    ) -> str:
        """A free address, the one wanted or the next one. Raises as ipam.allocate_address."""
        address = ipam.allocate_address(network, used, wanted, self._last.get(network.id, ""))
        if not wanted:
            self._last[network.id] = address
        return address

    # -- the whole -----------------------------------------------------------------------

    async def prepare(
        self,
        networks: Sequence[NetworkInfo],
        endpoints: Sequence[Endpoint],
        published: Sequence[PublishedPort],
        balanced: Sequence[Balanced] = (),
    ) -> None:
        """Brings the kernel and the DNS server to the engine's state; see the module.

        What fits is left untouched; what is this engine's and not wanted is
        removed. Raises Failed, Unavailable, Conflict.
        """
        self._networks = {network.id: network for network in networks}
        self._endpoints = tuple(endpoints)
        self._ports = tuple(published)
        await asyncio.to_thread(self._prepare_links)
        await asyncio.to_thread(self._look_at_host)
        await self._place(balanced)
        await self._firewall.apply(self._wanted(), anew=True)
        if networks:
            await neighbours.let_pass(self._alias)
        if networks:
            self._refresh_names()

    def _prepare_links(self) -> None:
        namespaces.set_sysctl("net.ipv4.ip_forward", "1")
        for network in self._networks.values():
            links.ensure_bridge(network, self._alias)
        ports = {names.port_prefix(endpoint.instance_id) for endpoint in self._endpoints}
        bridges = {network.bridge for network in self._networks.values()}
        links.remove(*links.unwanted(links.own(self._alias), bridges, ports))

    def _wanted(self) -> Wanted:
        """The table's content. Where port 53 of a gateway is another's, ours is led to."""
        detours = []
        for gateway, port in self._resolver.held.ports.items():
            for protocol in ("tcp", "udp"):
                detours.append(
                    PublishedPort(
                        host_ip=gateway, host_port=53, protocol=protocol, address=gateway, port=port
                    )
                )
        networks = sorted(self._networks.values(), key=lambda network: network.bridge)
        # what a user publishes goes before what gemel offers at the gateways
        published = (*detours, *self._ports, *self._offers())
        shared = balance.plan(self._balanced, self._endpoints, self._ports, self._networks)
        return Wanted(tuple(networks), published, shared)

    def _offers(self) -> list[PublishedPort]:
        """Ports of all gateways that lead to a port of the host's loopback address."""
        published = {port.host_port for port in self._ports if port.protocol == "tcp"}
        return [
            PublishedPort(
                host_ip=network.gateway, host_port=port, protocol="tcp",
                address="127.0.0.1", port=inner,
            )
            for network in self._networks.values()
            for port, inner in self._led.items()
            if network.gateway and port not in published
            and (network.gateway, port) not in self._foreign
        ]  # fmt: skip

    def lead(self, offers: dict[int, int]) -> None:
        """Leads ports of every gateway to ports of 127.0.0.1; before ``prepare``.

        Those that another program of the host listens on there, or at all addresses, stay its
        own: that is looked at in ``prepare`` and with each new network.
        """
        self._led = dict(offers)

    def _look_at_host(self) -> None:
        gateways = {network.gateway for network in self._networks.values() if network.gateway}
        self._foreign = {
            (gateway, port)
            for gateway in gateways
            for port in self._led
            if ports.taken("tcp", gateway, port)
        }

    async def close(self, instances_left: bool) -> None:
        """When the engine stops. With instances left, all goes on; else nothing is left."""
        if self._names is not None:
            self._names.cancel()
            await asyncio.gather(self._names, return_exceptions=True)
        self._reservations.close()
        if instances_left:
            await self._resolver.detach()
        else:
            await self.teardown()

    async def teardown(self) -> None:
        """Removes everything of this engine: links, rules, namespaces, the DNS server."""
        self._networks, self._endpoints, self._ports, self._balanced = {}, (), (), ()
        self._reservations.close()
        await self._resolver.stop()
        await self._firewall.remove()
        await neighbours.withdraw(self._alias)
        await asyncio.to_thread(self._remove_all)

    def _remove_all(self) -> None:
        links.remove(*(link.name for link in links.own(self._alias)))
        folder = self._paths.netns("")
        if folder.is_dir():
            for path in folder.iterdir():
                namespaces.release(path)

    # -- networks ------------------------------------------------------------------------

    async def create_network(self, info: NetworkInfo) -> None:
        """Makes a network's bridge and rules. Idempotent.

        Raises Failed, Conflict; nothing is left then, if the network is new.
        """
        new = info.id not in self._networks
        self._networks[info.id] = info
        try:
            await asyncio.to_thread(links.ensure_bridge, info, self._alias)
            await asyncio.to_thread(self._look_at_host)
            await self._firewall.apply(self._wanted())
            await neighbours.let_pass(self._alias)
        except BaseException:
            if new:
                await self.remove_network(info)
            raise
        self._refresh_names()

    async def remove_network(self, info: NetworkInfo) -> None:
        """Removes a network's bridge and rules. Idempotent."""
        self._networks.pop(info.id, None)
        self._placed.pop(info.bridge, None)
        self._last.pop(info.id, None)
        await self._firewall.apply(self._wanted())
        await asyncio.to_thread(self._remove_bridge, info.bridge)
        self._refresh_names()

    def _remove_bridge(self, name: str) -> None:
        if any(link.name == name for link in links.own(self._alias)):
            links.remove(name)

    # -- instances -----------------------------------------------------------------------

    async def open_namespace(self, instance_id: str) -> Path:
        """A network namespace with lo up, kept at ``paths.netns(id)``. Idempotent."""
        path = self._paths.netns(instance_id)

        def work() -> None:
            if not mounts.is_mount(path):
                namespaces.create(path, links.NAMESPACE_SYSCTLS)

        await asyncio.to_thread(work)
        return path

    async def close_namespace(self, instance_id: str) -> None:
        """Lets the namespace go; the kernel removes its interfaces with it. Idempotent."""
        await asyncio.to_thread(namespaces.release, self._paths.netns(instance_id))

    async def connect(self, instance_id: str, namespace: Path | None, iface: Interface) -> None:
        """Makes an interface of an instance, running or not: see ``links.connect``."""
        await asyncio.to_thread(links.connect, namespace, iface, self._alias)

    async def disconnect(self, instance_id: str, namespace: Path | None, iface: Interface) -> None:
        """Removes an interface, both ends of it. Idempotent."""
        await asyncio.to_thread(links.remove, iface.host)

    async def reroute(self, namespace: Path, interfaces: Sequence[Interface]) -> None:
        """Gives a running container a default route again, after the one with it was removed."""
        await asyncio.to_thread(links.reroute, namespace, interfaces)

    # -- names ---------------------------------------------------------------------------

    async def set_endpoints(
        self,
        endpoints: Sequence[Endpoint],
        networks: Sequence[NetworkInfo],
        balanced: Sequence[Balanced] = (),
    ) -> None:
        """All names there are, from now on. Returns once the DNS server answers by them.

        balanced: services that have a virtual address; without the kernel's help for it their
        names lead to the instances' own addresses.
        """
        self._endpoints = tuple(endpoints)
        await self._place(balanced)
        if self._balanced:
            await self._firewall.apply(self._wanted())  # before anybody is told the address
        await self._push(tuple(networks))

    async def _place(self, balanced: Sequence[Balanced]) -> None:
        """Takes up which services have a virtual address, and gives the bridges these."""
        possible = bool(balanced) and await translate.available()
        self._balanced = tuple(balanced) if possible else ()
        wanted: dict[str, set[str]] = {bridge: set() for bridge in self._placed}
        for one in self._balanced:
            network = self._networks.get(one.network_id)
            if network is not None:
                wanted.setdefault(network.bridge, set()).add(one.address)
        for bridge, addresses in wanted.items():
            if self._placed.get(bridge, frozenset()) != frozenset(addresses):
                await asyncio.to_thread(translate.place, bridge, addresses)
                self._placed[bridge] = frozenset(addresses)
        self._placed = {bridge: placed for bridge, placed in self._placed.items() if placed}

    async def _push(self, networks: tuple[NetworkInfo, ...]) -> None:
        await self._resolver.push(networks, self._endpoints, self._balanced)
        # nothing to do but where port 53 of a gateway is another program's
        await self._firewall.apply(self._wanted())

    def _refresh_names(self) -> None:
        """Tells the DNS server of networks, in the background (it takes 0.3 s to start)."""
        if self._names is None or self._names.done():
            self._names = asyncio.create_task(self._tell_networks())

    async def _tell_networks(self) -> None:
        told: tuple[NetworkInfo, ...] | None = None
        try:
            while told != (now := tuple(self._networks.values())):
                await self._push(now)
                told = now
        except GemelError as error:
            log.error("%s", error)

    # -- published ports -----------------------------------------------------------------

    async def publish(
        self, ports: Sequence[PublishedPort], networks: Sequence[NetworkInfo]
    ) -> None:
        """All published ports there are, from now on; in one transaction."""
        self._ports = tuple(ports)
        self._networks.update((network.id, network) for network in networks)
        await self._firewall.apply(self._wanted())

    async def reserve(self, port: PublishedPort, *, shared: bool = True) -> None:
        """Holds a port of the host for ``port.instance_id``. Raises Conflict (says who has it).

        shared: fine if only allied instances have it; it is balanced over all of them then.
        """
        await asyncio.to_thread(self._reservations.reserve, port, shared=shared)

    async def hand_over(self, port: PublishedPort, old: str) -> None:
        """Gives a port that ``old`` holds to another instance, ``port.instance_id``."""
        self._reservations.hand_over(port, old)

    async def release(self, port: PublishedPort) -> None:
        """Lets go of a port. Idempotent."""
        self._reservations.release(port)

    async def choose_port(self, host_ip: str, protocol: str) -> int:
        """A free port of the host, held until it is reserved or released."""
        return await asyncio.to_thread(self._reservations.choose, host_ip, protocol)

    # -- doctor --------------------------------------------------------------------------

    async def findings(self) -> list[Finding]:
        """What of this host would disturb networks, and what is well."""
        try:
            nft = program()
        except GemelError as error:
            return [Finding("nftables", "missing", error.details, error.resolution)]
        found = [Finding("nftables", "ok", "published ports and isolation work")]
        for details, resolution in await neighbours.obstacles(nft, self._alias):
            found.append(Finding("firewall", "warning", details, resolution))
        for gateway, reason in self._resolver.held.failures.items():
            found.append(Finding("names", "warning", f"no DNS server on {gateway}: {reason}"))
        if not await translate.possible():
            details = "names of several replicas lead to all their addresses, not to a virtual one"
            found.append(Finding("balancing", "warning", details, "run: modprobe br_netfilter"))
        if not Path("/dev/net/tun").exists():
            found.append(
                Finding("tun", "missing", "micro VMs need /dev/net/tun", "run: modprobe tun")
            )
        if run.find("conntrack") is None:
            found.append(
                Finding(
                    "conntrack",
                    "warning",
                    "without it UDP clients may go on talking to an instance that was replaced",
                    "apt install conntrack",
                )
            )
        return found
