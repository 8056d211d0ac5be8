"""Published ports and the links that carry traffic. Real bridges, namespaces and rules."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from gemel.errors import Conflict, InvalidInput
from gemel.host.netlink import Netlink
from gemel.model.instance import Interface
from tests.system.networld import (
    NOT,
    Box,
    Host,
    World,
    addresses,
    ask_udp,
    link_names,
    tcp,
)

pytestmark = pytest.mark.root


async def test_tcp_port_on_localhost(world: World, outside: Box) -> None:
    net = await world.network("n")
    a, b = await world.box(net), await world.box(net)
    await world.tcp_server(a, 80, "a")
    await world.publish(world.port(a, 80))
    assert await tcp(Host(), "127.0.0.1", 8080) == f"a {net.gateway}"
    assert await tcp(outside, "198.51.100.1", 8080) == "ConnectionRefusedError"
    assert await tcp(b, net.gateway, 8080) == "ConnectionRefusedError"
    await world.publish()
    await world.manager.release(world.port(a, 80))
    assert await tcp(Host(), "127.0.0.1", 8080) == "ConnectionRefusedError"


async def test_tcp_port_on_all_addresses(world: World, outside: Box) -> None:
    one, two = await world.network("one"), await world.network("two")
    a, near, far = await world.box(one), await world.box(one), await world.box(two)
    await world.tcp_server(a, 80, "a")
    await world.publish(world.port(a, 80, host_ip="0.0.0.0"))
    assert await tcp(outside, "198.51.100.1", 8080) == "a 198.51.100.2"
    for place in (Host(), near, far, a):
        assert (await tcp(place, "198.51.100.1", 8080)).startswith("a ")
    for place, gateway in ((near, one.gateway), (a, one.gateway), (far, two.gateway)):
        assert (await tcp(place, gateway, 8080)).startswith("a ")
    assert (await tcp(Host(), "127.0.0.1", 8080)).startswith("a ")
    # the port that is not published cannot be reached, whatever the other machine's routes
    await world.tcp_server(a, 81, "hidden")
    await outside.run("ip", "route", "add", one.subnet, "via", "198.51.100.1")
    assert await tcp(outside, a.address, 81, NOT) == "TimeoutError"


async def test_udp_ports_and_a_change_of_their_target(world: World, outside: Box) -> None:
    net = await world.network("n")
    a, b = await world.box(net), await world.box(net)
    await world.udp_server(a, 9000, "a")
    await world.udp_server(b, 9000, "b")
    everywhere = {"host_ip": "0.0.0.0", "host_port": 9053, "protocol": "udp"}
    await world.publish(world.port(a, 9000, **everywhere))
    with outside.socket(socket.SOCK_DGRAM) as far, Host().socket(socket.SOCK_DGRAM) as near:
        far.bind(("198.51.100.2", 0))
        assert await ask_udp(far, b"x", ("198.51.100.1", 9053)) == b"a 198.51.100.2"
        assert (await ask_udp(near, b"x", ("127.0.0.1", 9053))).startswith(b"a ")
        await world.manager.release(world.port(a, 9000, **everywhere))
        await world.publish(world.port(b, 9000, **everywhere))
        # the same flow goes to the new instance: the kernel's memory of it has been ended
        assert await ask_udp(far, b"x", ("198.51.100.1", 9053)) == b"b 198.51.100.2"


async def test_taken_ports_say_by_whom(world: World) -> None:
    net = await world.network("n")
    a, b = await world.box(net), await world.box(net)
    with Host().socket(socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", 8081))
        other.listen()
        with pytest.raises(Conflict) as caught:
            await world.manager.reserve(world.port(a, 80, host_port=8081, host_ip="0.0.0.0"))
        assert caught.value.brief == "Bind for 0.0.0.0:8081 failed: port is already allocated"
        assert f"(pid {os.getpid()})" in caught.value.details
    await world.manager.reserve(world.port(a, 80, host_port=8081))
    await world.manager.reserve(world.port(a, 80, host_port=8081))  # its own: fine
    with pytest.raises(Conflict) as caught:
        await world.manager.reserve(world.port(b, 80, host_port=8081, host_ip="0.0.0.0"))
    assert a.id[:12] in caught.value.details
    with pytest.raises(OSError), Host().socket(socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 8081))
        other.listen()
    with pytest.raises(InvalidInput):
        await world.manager.reserve(world.port(a, 80, host_ip="203.0.113.9"))
    chosen = await world.manager.choose_port("127.0.0.1", "tcp")
    assert 32768 <= chosen <= 60999
    await world.manager.reserve(world.port(b, 80, host_port=chosen))
    with pytest.raises(Conflict):
        await world.manager.reserve(world.port(a, 80, host_port=chosen))


async def test_tap_of_a_micro_vm(world: World) -> None:
    net = await world.network("n")
    id = "e" * 64
    iface = Interface(
        name="eth0",
        host=world.manager.port_name(id, 0),
        bridge=net.bridge,
        mac="02:42:00:00:00:01",
        address="10.0.0.9/24",
        gateway=net.gateway,
        mtu=1400,
    )
    for _ in range(2):
        await world.manager.connect(id, None, iface)
        with Netlink() as kernel:
            links = {link.name: link for link in kernel.links()}
        tap = links[iface.host]
        assert (tap.type, tap.master, tap.mtu) == ("tun", links[net.bridge].number, 1400)
        assert tap.up
    await world.manager.disconnect(id, None, iface)
    assert iface.host not in link_names()


async def test_many_at_once(world: World) -> None:
    net = await world.network("n")
    boxes = await asyncio.gather(*(world.box() for _ in range(20)))
    await asyncio.gather(*(world.join(box, net, (f"b{n}",)) for n, box in enumerate(boxes)))
    assert len({box.address for box in boxes}) == 20
    for n in (0, 19):
        assert await addresses(boxes[7], net.gateway, f"b{n}") == {boxes[n].address}
    ports = [world.port(box, 80, host_port=20000 + n) for n, box in enumerate(boxes)]
    sets = [ports[: n + 1] for n in range(20)]
    await asyncio.gather(*(world.manager.publish(some, world.networks) for some in sets))
    await world.tcp_server(boxes[19], 80, "last")
    assert (await tcp(Host(), "127.0.0.1", 20019)).startswith("last")


async def test_restart_with_the_same_address(world: World) -> None:
    net = await world.network("n")
    a, b = await world.box(net, names=("a",)), await world.box(net)
    await world.tcp_server(a, 80, "first")
    assert (await tcp(b, a.address, 80)).startswith("first")
    await world.exit.aclose()
    await world.manager.close_namespace(a.id)
    await world.manager.close_namespace(a.id)  # again is fine
    assert not a.namespace.exists()
    # at once, while the kernel may still be at taking the old interface down
    assert await world.manager.open_namespace(a.id) == a.namespace
    await world.manager.connect(a.id, a.namespace, a.interfaces[0])
    await world.tcp_server(a, 80, "second")
    assert (await tcp(b, a.address, 80)).startswith("second")
    assert await addresses(b, net.gateway, "a") == {a.address}
