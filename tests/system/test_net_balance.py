"""Virtual addresses and shared host ports in the kernel, without an engine."""

from __future__ import annotations

import collections
import socket

import msgspec
import pytest

from gemel.host import run
from gemel.model.network import Balanced, NetworkInfo
from tests.system.networld import Box, World, addresses, ask_udp, tcp

pytestmark = pytest.mark.root


async def replicas(world: World, net: NetworkInfo) -> tuple[list[Box], str]:
    """Two that say their names on port 80, TCP and UDP; their virtual address."""
    boxes = [await world.box(net, names=(f"web-{n}", "web")) for n in (1, 2)]
    for number, box in enumerate(boxes):
        await world.tcp_server(box, 80, f"web{number}")
        await world.udp_server(box, 80, f"web{number}")
    address = net.subnet.replace(".0/24", ".254")
    ids = tuple(box.id for box in boxes)
    world.balanced = [Balanced(network_id=net.id, name="web", address=address, instances=ids)]
    await world.tell()
    return boxes, address


def set_ready(world: World, box: Box, ready: bool) -> None:
    world.endpoints = [
        msgspec.structs.replace(end, ready=ready) if end.instance_id == box.id else end
        for end in world.endpoints
    ]


async def words(box: Box, address: str, count: int) -> collections.Counter[str]:
    return collections.Counter([await tcp(box, address, 80) for _ in range(count)])


async def test_connections_go_to_the_ready_ones_in_turn(world: World) -> None:
    net = await world.network("app")
    client = await world.box(net, names=("client",))
    boxes, address = await replicas(world, net)
    assert await addresses(client, net.gateway, "web") == {address}
    mine = client.address
    assert await words(client, address, 6) == {f"web0 {mine}": 3, f"web1 {mine}": 3}
    set_ready(world, boxes[0], False)
    await world.tell()
    assert await words(client, address, 4) == {f"web1 {mine}": 4}
    found = await words(boxes[1], address, 2)  # one that reaches itself
    assert found == {f"web1 {net.gateway}": 2}


async def test_without_an_instance_it_is_refused_and_nothing_of_the_host_answers(
    world: World,
) -> None:
    net = await world.network("app")
    client = await world.box(net)
    _, address = await replicas(world, net)
    world.endpoints = [end for end in world.endpoints if end.instance_id == client.id]
    await world.tell()
    with socket.create_server(("", 8099)):
        assert await tcp(client, address, 8099) == "ConnectionRefusedError"


async def test_another_network_does_not_get_in_by_the_address(world: World) -> None:
    net, other = await world.network("app"), await world.network("other")
    stranger = await world.box(other)
    _, address = await replicas(world, net)
    assert await tcp(stranger, address, 80) == "ConnectionRefusedError"


async def test_udp_flows_leave_who_is_no_longer_ready(world: World) -> None:
    net = await world.network("app")
    client = await world.box(net)
    boxes, address = await replicas(world, net)
    with client.socket(socket.SOCK_DGRAM) as sock:
        sock.bind(("", 5353))
        before = (await ask_udp(sock, b"?", (address, 80))).split()[0].decode()
        assert (await ask_udp(sock, b"?", (address, 80))).split()[0].decode() == before
        set_ready(world, boxes[int(before[-1])], False)
        await world.tell()
        after = (await ask_udp(sock, b"?", (address, 80))).split()[0].decode()
    assert {before, after} == {"web0", "web1"}


async def test_a_host_port_of_two_and_what_is_left(world: World) -> None:
    net = await world.network("app")
    boxes, _ = await replicas(world, net)
    client = await world.box(net)
    ports = [world.port(box, 80, host_ip="0.0.0.0") for box in boxes]
    await world.manager.publish(ports, world.networks)
    gateway = net.gateway
    said = [(await tcp(client, gateway, 8080)).split()[0] for _ in range(4)]
    assert collections.Counter(said) == {"web0": 2, "web1": 2}
    world.balanced = []
    await world.manager.publish(ports[:1], world.networks)
    await world.tell()
    tables = (await run.run(["nft", "list", "tables"])).stdout.decode()
    assert "-lb" not in tables
    shown = (await run.run(["ip", "-4", "-brief", "address", "show", net.bridge])).stdout.decode()
    assert "/32" not in shown
