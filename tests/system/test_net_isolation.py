"""Who may reach whom, and what is left afterwards. Real bridges, namespaces and rules."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from gemel.host import namespaces, run
from gemel.model.instance import Interface
from gemel.model.paths import Paths
from tests.system.networld import (
    COMES,
    NOT,
    Box,
    Host,
    World,
    addresses,
    alive,
    dns_pid,
    link_names,
    manager_at,
    resolv_conf,
    resolve,
    tcp,
    until,
)

pytestmark = pytest.mark.root


async def test_networks_are_isolated_and_an_instance_may_be_on_two(world: World) -> None:
    one, two = await world.network("one"), await world.network("two")
    a = await world.box(one, names=("a",))
    b = await world.box(two, names=("b",))
    await world.tcp_server(b, 80, "b")
    assert (await resolve(a, one.gateway, "b")).rcode() == dns.rcode.NXDOMAIN
    assert await tcp(a, b.address, 80, NOT) == "TimeoutError"

    iface = await world.join(a, two, names=("a",))  # while it runs
    assert await addresses(a, one.gateway, "b") == {b.address}
    assert await tcp(a, b.address, 80) == f"b {iface.address.split('/')[0]}"
    assert len(await addresses(a, one.gateway, "a")) == 2

    await world.manager.disconnect(a.id, a.namespace, iface)
    await world.manager.disconnect(a.id, a.namespace, iface)  # again is fine
    assert await tcp(a, b.address, 80, NOT) == "TimeoutError"
    assert "eth1" not in await a.run("ip", "-o", "link")

    # the other one goes: the default route must come back by way of the one that is left
    await world.manager.connect(a.id, a.namespace, iface)
    await world.manager.disconnect(a.id, a.namespace, a.interfaces[0])
    assert "default" not in await a.run("ip", "route")
    await world.manager.reroute(a.namespace, [iface])
    assert f"default via {two.gateway} dev eth1" in await a.run("ip", "route")


async def test_ways_out(world: World, outside: Box, tmp_path: Path) -> None:
    net, internal = await world.network("n"), await world.network("closed", internal=True)
    a, locked, friend = await world.box(net), await world.box(internal), await world.box(internal)
    await world.tcp_server(outside, 80, "outside")
    await world.tcp_server(friend, 80, "friend")
    assert await tcp(a, "198.51.100.2", 80) == "outside 198.51.100.1"
    assert await tcp(locked, "198.51.100.2", 80, NOT) == "TimeoutError"
    assert await tcp(locked, friend.address, 80) == f"friend {locked.address}"
    assert (await resolve(locked, internal.gateway, "example.org")).rcode() == dns.rcode.NXDOMAIN
    # private ranges beyond the host: not by default
    assert await tcp(Host(), "172.20.0.2", 80) != "TimeoutError"
    assert await tcp(a, "172.20.0.2", 80, NOT) == "TimeoutError"
    open_manager = manager_at(tmp_path, allow_private=True)
    await open_manager.prepare(world.networks, world.endpoints, [])
    assert (await tcp(a, "172.20.0.2", 80)).startswith("outside ")
    assert await tcp(locked, "172.20.0.2", 80, NOT) == "TimeoutError"
    await open_manager.close(instances_left=True)


async def test_loopback_of_the_host_stays_closed(world: World) -> None:
    """Bridges have route_localnet, so a packet for 127.0.0.1 would be taken from an instance."""
    net = await world.network("n")
    a = await world.box(net)
    await a.run("ip", "route", "delete", "local", "127.0.0.0/8", "table", "local")
    await a.run("ip", "route", "delete", "local", "127.0.0.1", "table", "local")
    await a.run("ip", "route", "add", "127.0.0.0/8", "via", net.gateway, "src", a.address)

    def open_loopback() -> None:
        namespaces.set_sysctl("net.ipv4.conf.eth0.route_localnet", "1")

    namespaces.inside(a.namespace, open_loopback)
    loop = asyncio.get_running_loop()
    place = a.socket(socket.SOCK_DGRAM)
    with Host().socket(socket.SOCK_DGRAM) as secret, place, Host().socket(socket.SOCK_DGRAM) as own:
        secret.bind(("127.0.0.1", 9100))
        await addresses(a, net.gateway, "host.docker.internal")  # neighbours know each other
        for _ in range(3):
            await loop.sock_sendto(place, b"from an instance", ("127.0.0.1", 9100))
            await asyncio.sleep(0.05)
        await loop.sock_sendto(own, b"from the host", ("127.0.0.1", 9100))
        async with asyncio.timeout(COMES):
            assert await loop.sock_recv(secret, 99) == b"from the host"


async def test_beside_a_firewall_that_drops(world: World, outside: Box) -> None:
    for chain in ("FORWARD", "INPUT"):
        await run.run(["iptables", "-P", chain, "DROP"])
    await run.run(["iptables", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"])
    established = ["-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]
    await run.run(["iptables", "-A", "INPUT", *established])
    try:
        before = (await run.run(["iptables", "-S"])).stdout
        net, other = await world.network("n"), await world.network("other")
        a, b = await world.box(net, names=("a",)), await world.box(net)
        c = await world.box(other)
        await world.tcp_server(a, 80, "a")
        await world.tcp_server(outside, 80, "outside")
        await world.publish(world.port(a, 80, host_ip="0.0.0.0"))
        assert await addresses(b, net.gateway, "a") == {a.address}
        assert await tcp(b, a.address, 80) == f"a {b.address}"
        assert (await tcp(b, "198.51.100.2", 80)).startswith("outside")
        assert await tcp(outside, "198.51.100.1", 8080) == "a 198.51.100.2"
        assert await tcp(c, a.address, 80, NOT) == "TimeoutError"
        found = await world.manager.findings()
        assert [finding.status for finding in found if finding.name == "firewall"] == []
        await world.manager.teardown()
        assert (await run.run(["iptables", "-S"])).stdout == before
    finally:
        for chain in ("FORWARD", "INPUT"):
            await run.run(["iptables", "-P", chain, "ACCEPT"])
            await run.run(["iptables", "-F", chain])


async def test_a_connection_that_fails_leaves_nothing(world: World) -> None:
    net = await world.network("n")
    box = await world.box(net)
    before = link_names()
    good = box.interfaces[0]
    bad = Interface(
        name="eth0",  # exists already
        host=world.manager.port_name(box.id, 1),
        bridge=net.bridge,
        mac=good.mac,
        address=good.address,
        gateway="",
    )
    with pytest.raises(Exception, match="veth"):
        await world.manager.connect(box.id, box.namespace, bad)
    assert link_names() <= before  # the kernel may still be at those of an earlier test


async def test_teardown_leaves_nothing(tmp_path: Path) -> None:
    before = link_names()
    manager = manager_at(tmp_path)
    await manager.prepare([], [], [])
    world = World(tmp_path, manager)
    box = await world.box(await world.network("n"), names=("a",))
    pid = dns_pid(tmp_path)
    table = Paths(tmp_path / "root", tmp_path / "run").cgroup
    listed = await run.run(["nft", "list", "tables"])
    assert table.encode() in listed.stdout
    await manager.close(instances_left=False)
    await until(lambda: link_names() <= before)
    await until(lambda: not alive(pid))
    listed = await run.run(["nft", "list", "tables"])
    assert table.encode() not in listed.stdout
    assert not box.namespace.exists()
    await manager.teardown()  # again is fine
    resolv_conf().unlink(missing_ok=True)
