"""Names, and the server that answers for them. Real bridges, namespaces and rules."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from gemel.host.netlink import Netlink
from gemel.model.network import Endpoint
from tests.system.networld import (
    COMES,
    Host,
    World,
    addresses,
    alive,
    connect,
    dns_pid,
    manager_at,
    resolve,
    tcp,
    until,
)

pytestmark = pytest.mark.root


async def test_names_within_a_network(world: World) -> None:
    net = await world.network("app_default")
    a = await world.box(net, names=("app-web-1", "web", "Alias.Example"))
    b = await world.box(net, names=("app-db-1", "db"))
    c = await world.box(net, names=("app-web-2", "web"))
    gateway = net.gateway
    assert await addresses(b, gateway, "web") == {a.address, c.address}
    assert await addresses(b, gateway, "WEB.") == {a.address, c.address}
    assert await addresses(b, gateway, "alias.example") == {a.address}
    assert await addresses(a, gateway, "db.app_default") == {b.address}
    assert await addresses(a, gateway, "host.docker.internal") == {gateway}
    empty = await resolve(a, gateway, "db", "AAAA")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    assert (await resolve(a, gateway, "nobody")).rcode() == dns.rcode.NXDOMAIN
    reverse = (await a.run("dig", "+short", "-x", b.address, f"@{gateway}")).split()
    assert reverse == ["app-db-1.app_default."]
    over_tcp = (await a.run("dig", "+tcp", "+short", "db", f"@{gateway}")).split()
    assert over_tcp == [b.address]


async def test_replicas_that_are_not_ready_are_left_out(world: World) -> None:
    net = await world.network("n")
    a = await world.box(net, names=("w1", "web"))
    b = await world.box(net, names=("w2", "web"))
    first, second = world.endpoints
    world.endpoints = [
        Endpoint(
            network_id=first.network_id,
            instance_id=first.instance_id,
            address=first.address,
            mac=first.mac,
            names=first.names,
            ready=False,
        ),
        second,
    ]
    await world.tell()
    assert await addresses(a, net.gateway, "web") == {b.address}
    assert await addresses(b, net.gateway, "w1") == {a.address}


async def test_all_goes_on_when_the_engine_dies(world: World, tmp_path: Path) -> None:
    net, gone = await world.network("n"), await world.network("gone")
    a = await world.box(net, names=("a",))
    b = await world.box(net, names=("b",))
    lost = await world.box(gone)
    await world.tcp_server(a, 80, "a")
    await world.publish(world.port(a, 80))
    flow = await connect(Host(), "127.0.0.1", 8080, COMES)
    pid = dns_pid(tmp_path)
    with Netlink() as kernel:
        before = {link.name: link.number for link in kernel.links()}
    # what the kernel does for a killed process: its sockets are closed, nothing else
    await world.manager.close(instances_left=True)
    assert await addresses(b, net.gateway, "a") == {a.address}
    assert await tcp(Host(), "127.0.0.1", 8080) == f"a {net.gateway}"

    world.networks.remove(gone)
    world.endpoints = [place for place in world.endpoints if place.instance_id != lost.id]
    world.manager = manager_at(tmp_path)
    await world.manager.prepare(world.networks, world.endpoints, [world.port(a, 80)])
    await world.manager.reserve(world.port(a, 80))
    await world.tell()
    assert dns_pid(tmp_path) == pid
    with Netlink() as kernel:
        after = {link.name: link.number for link in kernel.links()}
    removed = {gone.bridge, lost.interfaces[0].host}
    kept = {net.bridge, a.interfaces[0].host, b.interfaces[0].host}
    # nothing is new; links of an earlier test may have gone only now
    assert after.items() <= before.items()
    assert kept <= after.keys() and removed <= before.keys() - after.keys()
    with flow:  # the connection from before is the same one still
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(COMES):
            await loop.sock_recv(flow, 999)
            await loop.sock_sendall(flow, b"still there")
            assert await loop.sock_recv(flow, 999) == b"still there"
    assert await tcp(Host(), "127.0.0.1", 8080) == f"a {net.gateway}"


async def test_dns_server_is_started_again(world: World, tmp_path: Path) -> None:
    net = await world.network("n")
    a = await world.box(net, names=("a",))
    pid = dns_pid(tmp_path)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "CapEff:\t0000000000000400" in status
    os.kill(pid, signal.SIGKILL)
    await until(lambda: dns_pid(tmp_path) not in (0, pid))
    assert await addresses(a, net.gateway, "a") == {a.address}


async def test_dns_server_that_hangs_is_replaced(world: World, tmp_path: Path) -> None:
    net = await world.network("n")
    a = await world.box(net, names=("a",))
    pid = dns_pid(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    b = await world.box(net, names=("b",))
    assert not alive(pid)
    assert await addresses(a, net.gateway, "b") == {b.address}


async def test_names_outside_are_asked_at_the_hosts_servers(world: World) -> None:
    class Upstream(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            answer = dns.message.make_response(dns.message.from_wire(data))
            name = answer.question[0].name
            if str(name) == "long.example.":
                answer.flags |= dns.flags.TC
            else:
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "203.0.113.7"))
            self.transport.sendto(answer.to_wire(), addr)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    address = f"127.0.{random.randrange(1, 250)}.{random.randrange(1, 250)}"
    transport, _ = await loop.create_datagram_endpoint(Upstream, local_addr=(address, 53))
    world.exit.callback(transport.close)
    net = await world.network("n")
    a = await world.box(net)
    # nobody at 127.0.0.53: an error, quickly
    assert (await resolve(a, net.gateway, "a.example")).rcode() == dns.rcode.SERVFAIL
    world.resolv_conf.write_text(f"nameserver 127.0.0.53\nnameserver {address}\n")
    assert await addresses(a, net.gateway, "a.example") == {"203.0.113.7"}
    assert (await resolve(a, net.gateway, "long.example")).flags & dns.flags.TC
    # a server of the instance's own
    world.endpoints = [
        Endpoint(
            network_id=net.id, instance_id=a.id, address=a.address, mac="", dns=("127.0.0.54",)
        )
    ]
    await world.tell()
    assert (await resolve(a, net.gateway, "a.example")).rcode() == dns.rcode.SERVFAIL


async def test_port_53_of_another_program(world: World) -> None:
    with Host().socket(socket.SOCK_DGRAM) as udp, Host().socket(socket.SOCK_STREAM) as other:
        udp.bind(("0.0.0.0", 53))
        other.bind(("0.0.0.0", 53))
        other.listen()
        net = await world.network("n")
        a = await world.box(net, names=("box",))
        assert await addresses(a, net.gateway, "box") == {a.address}
        assert (await a.run("dig", "+tcp", "+short", "box", f"@{net.gateway}")).split() == [
            a.address
        ]
