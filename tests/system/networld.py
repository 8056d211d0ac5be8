"""A world of real bridges, namespaces, rules and names, for tests of networks.

An instance is a network namespace here. The fixtures are made known by conftest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
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

from gemel.host import namespaces, run
from gemel.host.netlink import Netlink
from gemel.model.instance import Interface
from gemel.model.network import Balanced, Endpoint, NetworkInfo, PublishedPort
from gemel.model.paths import Paths
from gemel.net.manager import NetworkManager

#: Seconds after which an answer that should come is given up, and one that should not is not due.
COMES, NOT = 60.0, 0.7


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
        self.balanced: list[Balanced] = []
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
        await self.manager.set_endpoints(self.endpoints, self.networks, self.balanced)

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


async def ask_udp(sock: socket.socket, data: bytes, to: tuple[str, int]) -> bytes:
    """Sends until an answer comes; empty if none does within COMES."""
    loop = asyncio.get_running_loop()
    end, tries = loop.time() + COMES, 0
    answer = b""
    while not answer and loop.time() < end:
        tries += 1
        with contextlib.suppress(OSError):
            await loop.sock_sendto(sock, data, to)
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            async with asyncio.timeout(NOT):
                answer = (await loop.sock_recvfrom(sock, 65535))[0]
    while tries > 1:  # the others may be answered too: that is no answer to what is asked next
        try:
            async with asyncio.timeout(NOT):
                await loop.sock_recvfrom(sock, 65535)
        except (TimeoutError, ConnectionRefusedError):
            break
    return answer


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
    """0 while a server that starts has not written it yet."""
    words = (folder / "run/dns/pid").read_text().split()
    return int(words[0]) if words else 0


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
