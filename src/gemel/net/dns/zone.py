"""Which answer a client gets to a question about names. Pure.

A client is known by its source address. It sees the names of all networks that
its instance is on, whichever of their gateways it asks.

    name                           answer
    a name on its networks         A: the addresses of all ready instances that have it, in
                                   random order (of all of them if none is ready), or the
                                   virtual address that stands for them (not for one of them
                                   that asks itself); other types: empty, NOERROR
    tasks.name                     the addresses of the instances in every case
    name.network                   the same, of this network only
    a link of its instance         what the name that it stands for gives (Docker's --link)
    host.docker.internal, host.gemel.internal, gateway.docker.internal
                                   the gateway, which is the host
    PTR of an instance's address   name.network; NXDOMAIN for other addresses of its networks
    another name without a dot     NXDOMAIN
    all else                       forwarded (NXDOMAIN if all its networks are internal: a
                                   question is a way out, too)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.OPT  # the library imports a type's module when it first meets one, which
import dns.rdtypes.ANY.PTR  # fails once the server is nobody, if root alone may enter the folder
import dns.rdtypes.IN.A
import dns.reversename
import dns.rrset

from gemel.model.network import Balanced, Endpoint, NetworkInfo
from gemel.net.dns.protocol import Snapshot

#: Seconds that an answer may be kept. None: a replaced instance is never asked by its old address.
TTL = 0

#: Names of the host, seen from an instance.
HOST_NAMES = frozenset({"host.docker.internal", "host.gemel.internal", "gateway.docker.internal"})

#: Bytes of an answer over UDP to a client that does not say how much it takes (RFC 1035).
PLAIN_UDP = 512
#: The most that is sent in one datagram to a client that says so (RFC 9715: no fragments).
LARGEST_UDP = 1400


#: Answers kept, and variants of one (its addresses in other orders). A kept one takes 10 µs, not
#: 300, so that a service which asks before each request is not slowed down.
KEPT, VARIANTS = 1024, 8


class Forward(NamedTuple):
    """The question is for other servers: these, or the host's if there are none."""

    servers: tuple[str, ...]


class _Names:
    """The names of one network."""

    def __init__(self, network: NetworkInfo) -> None:
        self.network = network
        self.subnet = IPv4Network(network.subnet)
        self.entries: dict[str, list[Endpoint]] = {}
        self.virtual: dict[str, Balanced] = {}
        """By name."""

    def add(self, endpoint: Endpoint) -> None:
        for name in {name.lower() for name in endpoint.names}:
            self.entries.setdefault(name, []).append(endpoint)

    def balance(self, one: Balanced) -> None:
        self.virtual[one.name] = one

    def places(self, name: str, asker: str, *, plain: bool) -> list[tuple[str, bool]]:
        """What a name leads to for an instance, and whether it is ready.

        plain: never a virtual address.
        """
        found = self.entries.get(name, [])
        one = None if plain else self.virtual.get(name)
        if one is not None and asker not in one.instances:
            ready = [end.ready for end in found if end.instance_id in one.instances]
            if found and len(ready) == len(found):
                return [(one.address, any(ready))]
        return [(end.address, end.ready) for end in found]

    def virtual_name(self, address: str) -> str:
        """The name that a virtual address stands for; empty if it is none."""
        found = (one.name for one in self.virtual.values() if one.address == address)
        return next(found, "")


class Zone:
    """An index over a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.generation = snapshot.generation
        self._kept: dict[tuple[str, bool, bytes], list[bytes | Forward]] = {}
        self._networks = {network.id: _Names(network) for network in snapshot.networks}
        self._by_address: dict[tuple[str, str], Endpoint] = {}
        self._instances: dict[str, list[Endpoint]] = {}
        for endpoint in snapshot.endpoints:
            names = self._networks.get(endpoint.network_id)
            if names is None:
                continue
            names.add(endpoint)
            self._by_address[endpoint.network_id, endpoint.address] = endpoint
            self._instances.setdefault(endpoint.instance_id, []).append(endpoint)
        for one in snapshot.balanced:
            if one.network_id in self._networks:
                self._networks[one.network_id].balance(one)

    @property
    def gateways(self) -> frozenset[str]:
        """Addresses that the server listens on."""
        return frozenset(names.network.gateway for names in self._networks.values())

    def answer(self, wire: bytes, client: str, *, tcp: bool = False) -> bytes | Forward | None:
        """The answer to a datagram; Forward if others know it; None if it is none of ours."""
        key = (client, tcp, wire[2:])  # all but the id
        kept = self._kept.get(key, [])
        if len(kept) == VARIANTS or (kept and isinstance(kept[0], Forward)):
            chosen = random.choice(kept)
            return chosen if isinstance(chosen, Forward) else wire[:2] + chosen
        answer = self._compute(wire, client, tcp)
        if answer is not None and len(wire) <= PLAIN_UDP:
            if not kept and len(self._kept) >= KEPT:
                self._kept.clear()
            item = answer if isinstance(answer, Forward) else answer[2:]
            self._kept.setdefault(key, []).append(item)
        return answer

    def _compute(self, wire: bytes, client: str, tcp: bool) -> bytes | Forward | None:
        if len(wire) < 12 or wire[2] & 0x80:  # shorter than a header, or an answer
            return None
        try:
            query = dns.message.from_wire(wire, ignore_trailing=True)
            if not isinstance(query, dns.message.QueryMessage) or len(query.question) != 1:
                return _failure(wire, dns.rcode.FORMERR)
        except (dns.exception.DNSException, ValueError, UnicodeError):
            return _failure(wire, dns.rcode.FORMERR)
        seen = self._seen_by(client)
        if not seen:
            return _failure(wire, dns.rcode.REFUSED)
        if query.opcode() != dns.opcode.QUERY:
            return _failure(wire, dns.rcode.NOTIMP)
        response = self._respond(query, seen, client)
        if response is None:
            return self._forward(query, client, seen)
        return _to_wire(query, response, tcp)

    def _seen_by(self, client: str) -> list[_Names]:
        """The networks whose names a client sees, the one that it asks from first."""
        address = IPv4Address(client)
        near = next((names for names in self._networks.values() if address in names.subnet), None)
        if near is None:
            return []
        endpoint = self._by_address.get((near.network.id, client))
        if endpoint is None:
            return [near]
        others = (place.network_id for place in self._instances[endpoint.instance_id])
        return [near, *(self._networks[id] for id in others if id != near.network.id)]

    def _links_of(self, client: str, seen: Sequence[_Names]) -> dict[str, str]:
        """What the instance of a client calls others, all its networks' links together."""
        endpoint = self._by_address.get((seen[0].network.id, client))
        places = self._instances[endpoint.instance_id] if endpoint is not None else []
        return {own.lower(): name.lower() for place in places for own, name in place.links}

    def _asker(self, near: _Names, client: str) -> str:
        """The instance that asks; empty if it is none."""
        endpoint = self._by_address.get((near.network.id, client))
        return endpoint.instance_id if endpoint is not None else ""

    def _forward(
        self, query: dns.message.Message, client: str, seen: Sequence[_Names]
    ) -> Forward | bytes:
        if all(names.network.internal for names in seen):
            response = dns.message.make_response(query, recursion_available=True)
            response.set_rcode(dns.rcode.NXDOMAIN)
            return _to_wire(query, response, False)
        endpoint = self._by_address.get((seen[0].network.id, client))
        return Forward(endpoint.dns if endpoint is not None else ())

    def _respond(
        self, query: dns.message.Message, seen: Sequence[_Names], client: str
    ) -> dns.message.Message | None:
        """The answer from what is known here; None if the question is for others."""
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        if question.rdclass not in (dns.rdataclass.IN, dns.rdataclass.ANY):
            response.set_rcode(dns.rcode.REFUSED)
            return response
        name = _text(question.name)
        if name.endswith(".in-addr.arpa"):
            return self._reverse(response, question, seen)
        meant = self._links_of(client, seen).get(name, name)
        addresses = self._lookup(meant, seen, self._asker(seen[0], client))
        if addresses:
            if question.rdtype in (dns.rdatatype.A, dns.rdatatype.ANY):
                response.answer.append(
                    dns.rrset.from_text_list(question.name, TTL, "IN", "A", addresses)
                )
            return response
        if "." in name or not name:
            return None
        response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    def _lookup(self, name: str, seen: Sequence[_Names], asker: str) -> list[str]:
        if name in HOST_NAMES:
            return [seen[0].network.gateway]
        found = _among(seen, name, asker)
        if not found and name.startswith("tasks."):
            found = _among(seen, name.removeprefix("tasks."), asker, plain=True)
        addresses = list(dict.fromkeys(found))
        random.shuffle(addresses)
        return addresses

    def _reverse(
        self, response: dns.message.Message, question: dns.rrset.RRset, seen: Sequence[_Names]
    ) -> dns.message.Message | None:
        try:
            client = dns.reversename.to_address(question.name)
            address = IPv4Address(client)
        except (dns.exception.DNSException, ValueError):
            return None
        if not any(address in names.subnet for names in self._networks.values()):
            return None
        for names in seen:
            endpoint = self._by_address.get((names.network.id, client))
            own = f"{endpoint.names[0]}.{names.network.name}" if endpoint and endpoint.names else ""
            if shared := names.virtual_name(client):
                own = f"{shared}.{names.network.name}"
            if client == names.network.gateway:
                own = "host.gemel.internal"
            target = _absolute(own)
            if target is not None:
                if question.rdtype in (dns.rdatatype.PTR, dns.rdatatype.ANY):
                    response.answer.append(
                        dns.rrset.from_text(question.name, TTL, "IN", "PTR", target.to_text())
                    )
                return response
        response.set_rcode(dns.rcode.NXDOMAIN)
        return response


def _among(seen: Sequence[_Names], name: str, asker: str, *, plain: bool = False) -> list[str]:
    """Addresses of a name, or of ``name.network``, on these networks; ready ones if there are."""
    found = [place for names in seen for place in names.places(name, asker, plain=plain)]
    if not found:
        for names in seen:
            short = name.removesuffix("." + names.network.name.lower())
            if short != name:
                found = names.places(short, asker, plain=plain)
                break
    return [address for address, ready in found if ready] or [address for address, _ in found]


def _absolute(name: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(name) if name else None
    except dns.exception.DNSException:
        return None


def _text(name: dns.name.Name) -> str:
    """A question's name as names are kept: lower case, bytes as they are, no dot at the end."""
    return b".".join(name.labels).rstrip(b".").decode("utf-8", "replace").lower()


def _to_wire(query: dns.message.Message, response: dns.message.Message, tcp: bool) -> bytes:
    """Bytes of an answer; cut to what the client takes, with the TC flag, over UDP."""
    if tcp:
        return response.to_wire(max_size=65535)
    size = min(max(query.payload, PLAIN_UDP), LARGEST_UDP) if query.edns >= 0 else PLAIN_UDP
    try:
        return response.to_wire(max_size=size)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=size)


def _failure(wire: bytes, rcode: int) -> bytes:
    """A bare header with an error: for a question that may not even be readable."""
    flags = 0x8000 | (wire[2] & 0x79) << 8 | 0x80 | rcode  # QR, opcode and RD as asked, RA
    return wire[:2] + flags.to_bytes(2, "big") + bytes(8)


def failure(wire: bytes, rcode: int = dns.rcode.SERVFAIL) -> bytes:
    """An error as the answer to a readable question, which it repeats."""
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.Rcode(rcode))
        return response.to_wire()
    except (dns.exception.DNSException, ValueError, UnicodeError):
        return _failure(wire, rcode)
