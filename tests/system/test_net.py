"""Real bridges, namespaces, rules and names. An instance is a network namespace here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from gemel.errors import Conflict, InvalidInput
from gemel.host import namespaces, run
from gemel.host.netlink import Netlink
from gemel.model.instance import Interface
from gemel.model.network import Endpoint, NetworkInfo, PublishedPort
from gemel.model.paths import Paths
from gemel.net.manager import NetworkManager

pytestmark = pytest.mark.root

#: Seconds after which an answer that should come is given up, and one that should not is not due.
COMES, NOT = 20.0, 0.7


class Box:
    """A fake instance: a namespace with interfaces; sockets of it are used from the test."""

    def __init__(self, id: str, namespace: Path) -> None:
        self.id = id
        self.namespace = namespace
        self.interfaces: list[Interface] = []

    @property
    def address(self) -> str:
        return self.interfaces[0].address.split("/")[0]

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        def make() -> socket.socket:
            return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

        return namespaces.inside(self.namespace, make)

    async def run(self, *argv: str) -> str:
        done = await run.run(["nsenter", f"--net={self.namespace}", *argv], timeout=COMES)
        return done.stdout.decode()


class Host:
    """The host itself, for the same helpers."""

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)


Place = Box | Host


class World:
    """A manager, what was made with it, and the servers of the test."""

    def __init__(self, folder: Path, manager: NetworkManager) -> None:
        self.folder = folder
        self.manager = manager
        self.resolv_conf = resolv_conf()
        self.networks: list[NetworkInfo] = []
        self.endpoints: list[Endpoint] = []
        self.boxes: list[Box] = []
        self.exit = contextlib.AsyncExitStack()

    async def network(self, name: str, internal: bool = False) -> NetworkInfo:
        id = f"{random.getrandbits(256):064x}"
        subnet, gateway = self.manager.allocate_subnet(self.networks)
        info = NetworkInfo(
            id=id,
            name=name,
            bridge=self.manager.bridge_name(id),
            subnet=subnet,
            gateway=gateway,
            internal=internal,
        )
        await self.manager.create_network(info)
        self.networks.append(info)
        return info

    async def box(self, *networks: NetworkInfo, names: Sequence[str] = ()) -> Box:
        id = f"{random.getrandbits(256):064x}"
        box = Box(id, await self.manager.open_namespace(id))
        self.boxes.append(box)
        for network in networks:
            await self.join(box, network, names)
        return box

    async def join(self, box: Box, network: NetworkInfo, names: Sequence[str] = ()) -> Interface:
        used = [place.address for place in self.endpoints if place.network_id == network.id]
        address = self.manager.allocate_address(network, used)
        n = len(box.interfaces)
        iface = Interface(
            name=f"eth{n}",
            host=self.manager.port_name(box.id, n),
            bridge=network.bridge,
            mac=self.manager.mac_for(address),
            address=f"{address}/24",
            gateway=network.gateway,
        )
        endpoint = Endpoint(
            network_id=network.id,
            instance_id=box.id,
            address=address,
            mac=iface.mac,
            names=tuple(names),
        )
        self.endpoints.append(endpoint)
        await self.manager.connect(box.id, box.namespace, iface)
        box.interfaces.append(iface)
        await self.tell()
        return iface

    async def tell(self) -> None:
        await self.manager.set_endpoints(self.endpoints, self.networks)

    async def publish(self, *ports: PublishedPort) -> None:
        for port in ports:
            await self.manager.reserve(port)
        await self.manager.publish(ports, self.networks)

    async def tcp_server(self, place: Place, port: int, word: str, address: str = "") -> None:
        """Says ``word`` and the client's address, then repeats what it gets."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                client = writer.get_extra_info("peername")[0]
                writer.write(f"{word} {client}\n".encode())
                while data := await reader.read(4096):
                    writer.write(data)
            writer.close()

        sock = place.socket(socket.SOCK_STREAM)
        sock.bind((address, port))
        server = await asyncio.start_server(serve, sock=sock)
        self.exit.callback(server.close)

    async def udp_server(self, place: Place, port: int, word: str) -> None:
        class Answer(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                self.transport.sendto(f"{word} {addr[0]}".encode(), addr)  # type: ignore[attr-defined]

        sock = place.socket(socket.SOCK_DGRAM)
        sock.bind(("", port))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Answer, sock=sock)
        self.exit.callback(transport.close)

    def port(self, box: Box, port: int, **more: object) -> PublishedPort:
        values: dict[str, object] = {
            "host_ip": "127.0.0.1",
            "host_port": 8080,
            "protocol": "tcp",
            "address": box.address,
            "port": port,
            "instance_id": box.id,
        }
        return PublishedPort(**{**values, **more})  # type: ignore[arg-type]

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.exit.aclose()
        for box in self.boxes:
            await self.manager.close_namespace(box.id)
        await self.manager.teardown()
        self.resolv_conf.unlink(missing_ok=True)


async def connect(place: Place, address: str, port: int, wait: float) -> socket.socket:
    sock = place.socket(socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(wait):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def tcp(place: Place, address: str, port: int, wait: float = COMES) -> str:
    """What the server says, or the name of the error."""
    try:
        sock = await connect(place, address, port, wait)
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    with sock:
        async with asyncio.timeout(COMES):
            return (await asyncio.get_running_loop().sock_recv(sock, 999)).decode().strip()


async def ask_udp(sock: socket.socket, data: bytes, to: tuple[str, int], tries: int = 20) -> bytes:
    """Sends until an answer comes; empty if none does."""
    loop = asyncio.get_running_loop()
    for _ in range(tries):
        with contextlib.suppress(OSError):
            await loop.sock_sendto(sock, data, to)
        try:
            async with asyncio.timeout(NOT):
                return (await loop.sock_recvfrom(sock, 65535))[0]
        except (TimeoutError, ConnectionRefusedError):
            continue
    return b""


async def resolve(box: Box, server: str, name: str, kind: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    with box.socket(socket.SOCK_DGRAM) as sock:
        wire = await ask_udp(sock, query.to_wire(), (server, 53))
    assert wire, f"no answer for {name}"
    return dns.message.from_wire(wire)


async def addresses(box: Box, server: str, name: str) -> set[str]:
    answer = await resolve(box, server, name)
    return {str(item) for rrset in answer.answer for item in rrset}


async def until(check: Callable[[], bool]) -> None:
    for _ in range(int(COMES / 0.02)):
        if check():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(check)


def link_names() -> set[str]:
    with Netlink() as kernel:
        return {link.name for link in kernel.links()}


def dns_pid(folder: Path) -> int:
    return int((folder / "run/dns/pid").read_text().split()[0])


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def resolv_conf() -> Path:
    """A file that the user nobody can read, too (as whom the DNS server runs)."""
    return Path(tempfile.gettempdir()) / f"gemel-test-resolv-{os.getpid()}.conf"


def manager_at(folder: Path, **more: object) -> NetworkManager:
    resolv = resolv_conf()
    if not resolv.exists():
        resolv.write_text("nameserver 127.0.0.53\n")
        resolv.chmod(0o644)
    (folder / "run").mkdir(exist_ok=True)
    paths = Paths(folder / "root", folder / "run")
    return NetworkManager(paths, resolv_conf=resolv, **more)  # type: ignore[arg-type]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    manager = manager_at(tmp_path)
    await manager.prepare([], [], [])
    async with World(tmp_path, manager) as world:
        yield world


@pytest.fixture
async def outside(world: World) -> AsyncIterator[Box]:
    """Another machine beside the host: 198.51.100.2, also 172.20.0.2; the host is .1."""
    box = await world.box()
    link = f"out{random.getrandbits(24):06x}"
    await run.run(["ip", "link", "add", link, "type", "veth", "peer", "name", f"{link}p"])
    fd = os.open(box.namespace, os.O_RDONLY)
    os.set_inheritable(fd, True)
    await run.run(["ip", "link", "set", f"{link}p", "netns", f"/proc/self/fd/{fd}"], pass_fds=[fd])
    os.close(fd)
    for argv in (
        ["ip", "address", "add", "198.51.100.1/24", "dev", link],
        ["ip", "link", "set", link, "up"],
        ["ip", "route", "add", "172.20.0.0/24", "dev", link],
    ):
        await run.run(argv)
    await box.run("ip", "address", "add", "198.51.100.2/24", "dev", f"{link}p")
    await box.run("ip", "address", "add", "172.20.0.2/24", "dev", f"{link}p")
    await box.run("ip", "link", "set", f"{link}p", "up")
    await box.run("ip", "route", "add", "default", "via", "198.51.100.1")
    yield box
    await run.run(["ip", "link", "delete", link], check=False)


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


async def test_tcp_port_on_localhost(world: World, outside: Box) -> None:
    net = await world.network("n")
    a, b = await world.box(net), await world.box(net)
    await world.tcp_server(a, 80, "a")
    await world.publish(world.port(a, 80))
    assert await tcp(Host(), "127.0.0.1", 8080) == f"a {net.gateway}"
    assert await tcp(outside, "198.51.100.1", 8080, NOT) == "ConnectionRefusedError"
    assert await tcp(b, net.gateway, 8080, NOT) == "ConnectionRefusedError"
    await world.publish()
    await world.manager.release(world.port(a, 80))
    assert await tcp(Host(), "127.0.0.1", 8080, NOT) == "ConnectionRefusedError"


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
    assert after == {name: number for name, number in before.items() if name not in removed}
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
    await until(lambda: dns_pid(tmp_path) != pid)
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
    assert link_names() == before


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
    await until(lambda: link_names() == before)
    await until(lambda: not alive(pid))
    listed = await run.run(["nft", "list", "tables"])
    assert table.encode() not in listed.stdout
    assert not box.namespace.exists()
    await manager.teardown()  # again is fine
    resolv_conf().unlink(missing_ok=True)
