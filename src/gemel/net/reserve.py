"""Ports of the host that instances publish are held by a socket each.

The kernel leads the packets away before they reach it; the socket is there so
that no other program can take the port, and so that one that has it is found
out before anything starts. It does not listen: until the rules are in place, a
client is refused and not left waiting.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from collections.abc import Callable

from gemel.errors import Conflict, Failed, InvalidInput, Unsupported
from gemel.host.ports import holder
from gemel.model.network import PublishedPort

#: Where a free port is chosen from (the kernel's default range for clients, as Docker does).
FIRST, LAST = 32768, 60999

Key = tuple[str, str, int]


def _key(port: PublishedPort) -> Key:
    if port.protocol not in ("tcp", "udp"):
        raise Unsupported(f"ports of protocol {port.protocol} cannot be published")
    if not 0 < port.host_port < 65536 or not 0 < port.port < 65536:
        raise InvalidInput(f"invalid port {port.host_port}:{port.port}")
    try:
        ipaddress.IPv4Address(port.host_ip or "0.0.0.0")
    except ValueError:
        raise Unsupported(
            f"ports cannot be published on {port.host_ip}",
            details="gemel publishes ports on IPv4 addresses of the host",
            resolution="leave the address out, or write 127.0.0.1",
        ) from None
    return port.protocol, port.host_ip or "0.0.0.0", port.host_port


class Reservations:
    """The sockets held by this engine.

    describe: from an instance's id to words for people. allied: whether two instances may
    hold one port together.
    """

    def __init__(
        self,
        describe: Callable[[str], str] | None = None,
        allied: Callable[[str, str], bool] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._held: dict[Key, tuple[socket.socket, frozenset[str]]] = {}
        self._describe = describe or (lambda id: id[:12])
        self._allied = allied or (lambda id, other: False)

    def choose(self, host_ip: str, protocol: str) -> int:
        """A free port, held from now on until ``reserve`` takes it or ``release`` frees it."""
        with self._lock:
            return self._choose(host_ip, protocol)

    def _choose(self, host_ip: str, protocol: str) -> int:
        for attempt in range(64):
            # the kernel's own choice first; its range may be set to another one
            wanted = 0 if attempt == 0 else FIRST + (attempt * 977) % (LAST - FIRST + 1)
            try:
                made = _bind(protocol, host_ip or "0.0.0.0", wanted)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise _refused(host_ip, wanted, error) from error
            port: int = made.getsockname()[1]
            if FIRST <= port <= LAST:
                self._held[protocol, host_ip or "0.0.0.0", port] = made, frozenset()
                return port
            made.close()
        raise Conflict(f"no free {protocol} port between {FIRST} and {LAST} on {host_ip}")

    def reserve(self, port: PublishedPort, *, shared: bool = True) -> None:
        """Holds a port for an instance; fine if the same one has it already.

        shared: fine, too, if only instances that are allied with it have it.

        May take some 10 ms on a conflict: call it in a thread. Raises Conflict,
        InvalidInput (no such address of the host), Unsupported, Failed.
        """
        with self._lock:
            self._reserve(port, _key(port), shared)

    def _reserve(self, port: PublishedPort, key: Key, shared: bool) -> None:
        if key in self._held:
            made, owners = self._held[key]
            for owner in owners - {port.instance_id}:
                if not shared or not self._allied(owner, port.instance_id):
                    raise _conflict(port, self._describe(owner))
            self._held[key] = made, owners | {port.instance_id}
            return
        try:
            made = _bind(key[0], key[1], key[2])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _conflict(port, self._who(key)) from None
            raise _refused(key[1], key[2], error) from error
        self._held[key] = made, frozenset({port.instance_id})

    def _who(self, key: Key) -> str:
        for (protocol, _, number), (_, owners) in self._held.items():
            if (protocol, number) == (key[0], key[2]) and owners:
                return self._describe(min(owners))
        found = holder(*key)
        if found is None or not found.pid:
            return "another program, or an instance of another gemel engine"
        return f"{found.name} (pid {found.pid})"

    def release(self, port: PublishedPort) -> None:
        """Lets an instance go of a port; it is free once nobody else has it. Idempotent."""
        key = _key(port)
        with self._lock:
            made, owners = self._held.get(key, (None, frozenset()))
            left = owners - {port.instance_id}
            if made is not None and left:
                self._held[key] = made, left
                return
            self._held.pop(key, None)
        if made is not None:
            made.close()

    def hand_over(self, port: PublishedPort, old: str) -> None:
        """Gives what ``old`` holds to ``port.instance_id``; it is reserved if nobody has it."""
        with self._lock:
            key = _key(port)
            if key in self._held:
                made, owners = self._held[key]
                self._held[key] = made, (owners - {old}) | {port.instance_id}
            else:
                self._reserve(port, key, True)

    def close(self) -> None:
        """Lets go of all."""
        with self._lock:
            for made, _ in self._held.values():
                made.close()
            self._held.clear()


def _bind(protocol: str, address: str, port: int) -> socket.socket:
    """A bound socket. A port on which only ended connections linger is free (SO_REUSEADDR)."""
    try:
        return _bound(protocol, address, port, reuse=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or protocol != "tcp" or not port:
            raise
        if holder(protocol, address, port) is not None:
            raise
        # with SO_REUSEADDR two sockets may share a port unless one listens
        made = _bound(protocol, address, port, reuse=True)
        made.listen(1)
        return made


def _bound(protocol: str, address: str, port: int, *, reuse: bool) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        if reuse:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def _conflict(port: PublishedPort, who: str) -> Conflict:
    where = f"{port.host_ip or '0.0.0.0'}:{port.host_port}"
    return Conflict(
        f"Bind for {where} failed: port is already allocated",
        details=f"{port.protocol} port {port.host_port} is taken by {who}",
        resolution="stop that, or publish another port of the host",
    )


def _refused(address: str, port: int, error: OSError) -> Failed | InvalidInput:
    brief = f"Bind for {address}:{port} failed: {error.strerror}"
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidInput(
            brief,
            details=f"this host has no address {address}",
            resolution="publish on 0.0.0.0, 127.0.0.1 or an address that `ip address` shows",
        )
    return Failed(brief)
