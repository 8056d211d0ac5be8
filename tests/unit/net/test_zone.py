from __future__ import annotations

import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.model.network import Balanced, Endpoint, NetworkInfo
from gemel.net.dns.forward import _fits
from gemel.net.dns.protocol import Snapshot
from gemel.net.dns.zone import KEPT, LARGEST_UDP, PLAIN_UDP, VARIANTS, Forward, Zone, failure


def network(id: str, n: int, internal: bool = False) -> NetworkInfo:
    return NetworkInfo(
        id=id,
        name=f"app_{id}",
        bridge=f"gm-{id}",
        subnet=f"10.89.{n}.0/24",
        gateway=f"10.89.{n}.1",
        internal=internal,
    )


def endpoint(net: str, instance: str, address: str, *names: str, **more: object) -> Endpoint:
    return Endpoint(
        network_id=net,
        instance_id=instance,
        address=address,
        mac="",
        names=names,
        **more,  # type: ignore[arg-type]
    )


MANY = [endpoint("big", f"m{n}", f"10.89.3.{n}", "many", f"m{n}") for n in range(2, 200)]

ZONE = Zone(
    Snapshot(
        7,
        (network("one", 0), network("two", 1), network("in", 2, True), network("big", 3)),
        (
            endpoint("one", "a", "10.89.0.2", "app-a-1", "a", "shared"),
            endpoint("one", "b", "10.89.0.3", "app-b-1", "b", "shared", ready=False),
            endpoint("two", "b", "10.89.1.3", "app-b-1", "b"),
            endpoint("two", "c", "10.89.1.4", "app-c-1", "C.Dotted", dns=("9.9.9.9",)),
            endpoint("in", "d", "10.89.2.2", "d"),
            endpoint("in", "e", "10.89.2.3", "e"),
            endpoint("two", "e", "10.89.1.5", "e"),
            endpoint("nowhere", "f", "10.89.9.9", "f"),
            *MANY,
        ),
    )
)


def ask(
    client: str, name: str, kind: str = "A", *, tcp: bool = False, payload: int = 0
) -> dns.message.Message | Forward:
    query = dns.message.make_query(name, kind, use_edns=0 if payload else -1, payload=payload)
    answer = ZONE.answer(query.to_wire(), client, tcp=tcp)
    if isinstance(answer, Forward):
        return answer
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert message.id == query.id
    return message


def found(client: str, name: str, kind: str = "A") -> list[str]:
    answer = ask(client, name, kind)
    assert isinstance(answer, dns.message.Message)
    assert answer.rcode() == dns.rcode.NOERROR
    return sorted(str(item) for rrset in answer.answer for item in rrset)


def code(client: str, name: str, kind: str = "A") -> str:
    answer = ask(client, name, kind)
    assert isinstance(answer, dns.message.Message)
    return dns.rcode.to_text(answer.rcode())


@pytest.mark.parametrize(
    ("client", "name", "expected"),
    [
        ("10.89.0.2", "b", ["10.89.0.3"]),  # not ready, but there is no other
        ("10.89.0.2", "B.", ["10.89.0.3"]),
        ("10.89.0.2", "shared", ["10.89.0.2"]),  # the ready one
        ("10.89.0.2", "a.app_one", ["10.89.0.2"]),
        ("10.89.2.3", "e", ["10.89.1.5", "10.89.2.3"]),  # on both networks, asked from either
        ("10.89.1.5", "d", ["10.89.2.2"]),
        ("10.89.0.3", "b", ["10.89.1.3"]),  # ready on the one, not on the other
        ("10.89.1.3", "app-a-1", ["10.89.0.2"]),
        ("10.89.1.3", "b.app_two", ["10.89.1.3"]),
        ("10.89.1.3", "c.dotted", ["10.89.1.4"]),
        ("10.89.0.77", "a", ["10.89.0.2"]),  # an address that is not known yet
        ("10.89.0.1", "a", ["10.89.0.2"]),  # the host
        ("10.89.1.4", "host.docker.internal", ["10.89.1.1"]),
        ("10.89.2.2", "HOST.gemel.internal", ["10.89.2.1"]),
    ],
)
def test_addresses(client: str, name: str, expected: list[str]) -> None:
    assert found(client, name) == expected
    assert found(client, name, "AAAA") == []
    assert found(client, name, "MX") == []


@pytest.mark.parametrize(
    ("client", "name", "expected"),
    [
        ("10.89.0.2", "c.dotted", Forward(())),  # of another network
        ("10.89.0.2", "example.org", Forward(())),
        ("10.89.0.2", "b.app_two", Forward(())),
        ("10.89.1.4", "example.org", Forward(("9.9.9.9",))),
        ("10.89.2.3", "example.org", Forward(())),  # on an internal network and another
        ("10.89.0.2", ".", Forward(())),
    ],
)
def test_what_others_are_asked(client: str, name: str, expected: Forward) -> None:
    assert ask(client, name) == expected


def test_refusals() -> None:
    assert code("10.89.0.2", "nobody") == "NXDOMAIN"
    assert code("10.89.0.2", "nobody", "AAAA") == "NXDOMAIN"
    assert code("10.89.2.2", "example.org") == "NXDOMAIN"  # no way out
    assert code("192.0.2.9", "a") == "REFUSED"  # not one of ours


def test_reverse() -> None:
    assert found("10.89.0.2", "3.0.89.10.in-addr.arpa", "PTR") == ["app-b-1.app_one."]
    assert found("10.89.0.3", "4.1.89.10.in-addr.arpa", "PTR") == ["app-c-1.app_two."]
    assert found("10.89.0.2", "1.0.89.10.in-addr.arpa", "PTR") == ["host.gemel.internal."]
    assert code("10.89.0.2", "4.1.89.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert code("10.89.0.2", "99.0.89.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert ask("10.89.0.2", "8.8.8.8.in-addr.arpa", "PTR") == Forward(())


def test_long_answers_are_cut_over_udp_only() -> None:
    for payload, limit in ((0, PLAIN_UDP), (1232, 1232), (65000, LARGEST_UDP)):
        query = dns.message.make_query(
            "many", "A", use_edns=0 if payload else -1, payload=payload
        ).to_wire()
        wire = ZONE.answer(query, "10.89.3.2")
        assert isinstance(wire, bytes) and len(wire) <= limit
        assert dns.message.from_wire(wire).flags & dns.flags.TC
        whole = ZONE.answer(query, "10.89.3.2", tcp=True)
        assert isinstance(whole, bytes)
        assert len(dns.message.from_wire(whole).answer[0]) == len(MANY)


def test_kept_answers_are_those_of_the_client_and_in_random_order() -> None:
    zone = Zone(
        Snapshot(
            1,
            (network("one", 0), network("two", 1)),
            tuple(
                endpoint(net, f"{net}{n}", f"10.89.{index}.{n}", "web")
                for index, net in enumerate(("one", "two"))
                for n in range(2, 6)
            ),
        )
    )
    firsts = set()
    for round in range(20 * VARIANTS):
        client = f"10.89.{round % 2}.2"
        query = dns.message.make_query("web", "A")
        wire = zone.answer(query.to_wire(), client)
        assert isinstance(wire, bytes)
        answer = dns.message.from_wire(wire)
        assert answer.id == query.id
        assert {str(item)[:8] for item in answer.answer[0]} == {client[:8]}
        firsts.add(str(answer.answer[0][0]))
    assert len(firsts) > 2
    for n in range(3 * KEPT):
        zone.answer(dns.message.make_query(f"x{n}", "A").to_wire(), "10.89.0.2")
    assert len(zone._kept) <= KEPT


def test_answers_and_fragments_are_ignored() -> None:
    query = dns.message.make_query("a", "A")
    answer = dns.message.make_response(query).to_wire()
    assert ZONE.answer(answer, "10.89.0.2") is None
    assert ZONE.answer(query.to_wire()[:11], "10.89.0.2") is None


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data: bytes) -> None:
    for client in ("10.89.0.2", "10.89.2.2", "192.0.2.9"):
        answer = ZONE.answer(data, client)
        if isinstance(answer, bytes):
            assert answer[:2] == data[:2] and answer[2] & 0x80
    if len(data) >= 12:
        assert failure(data)[:2] == data[:2]


@given(st.data())
def test_changed_questions_are_survived(data: st.DataObject) -> None:
    wire = bytearray(dns.message.make_query("a.app_one", "ANY", use_edns=0).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    answer = ZONE.answer(cut, "10.89.0.2", tcp=data.draw(st.booleans()))
    if isinstance(answer, bytes):
        assert len(answer) >= 12 and answer[:2] == cut[:2]
    _fits(cut, bytes(wire))


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_names_of_instances_are_survived(name: str, other: str) -> None:
    zone = Zone(
        Snapshot(1, (network("one", 0),), (endpoint("one", "x", "10.89.0.9", name, other),))
    )
    for question, kind in (("9.0.89.10.in-addr.arpa", "PTR"), ("a", "A")):
        query = dns.message.make_query(question, kind).to_wire()
        assert isinstance(zone.answer(query, "10.89.0.9"), bytes)


def test_only_the_answer_to_the_question_fits() -> None:
    query = dns.message.make_query("example.org", "A")
    good = dns.message.make_response(query)
    assert _fits(query.to_wire(), good.to_wire())
    assert not _fits(query.to_wire(), query.to_wire())
    other = dns.message.make_response(dns.message.make_query("example.com", "A"))
    other.id = query.id
    assert not _fits(query.to_wire(), other.to_wire())
    good.id ^= 1
    assert not _fits(query.to_wire(), good.to_wire())


SHARED = Zone(
    Snapshot(
        1,
        (network("one", 0), network("two", 1)),
        (
            endpoint("one", "a", "10.89.0.2", "app-web-1", "web"),
            endpoint("one", "b", "10.89.0.3", "app-web-2", "web", ready=False),
            endpoint("two", "b", "10.89.1.3", "app-web-2", "web"),
            endpoint("one", "c", "10.89.0.4", "client", "mixed"),
            endpoint("two", "c", "10.89.1.4", "client"),
            endpoint("one", "d", "10.89.0.5", "d", "mixed", "tasks.d"),
        ),
        (
            Balanced(
                network_id="one", name="web", address="10.89.0.254", instances=("a", "b", "gone")
            ),
            Balanced(network_id="one", name="mixed", address="10.89.0.253", instances=("d",)),
        ),
    )
)


@pytest.mark.parametrize(
    ("client", "name", "expected"),
    [
        ("10.89.0.5", "web", ["10.89.0.254"]),
        ("10.89.0.5", "WEB.app_one", ["10.89.0.254"]),
        ("10.89.0.5", "tasks.web", ["10.89.0.2"]),
        ("10.89.0.5", "app-web-2", ["10.89.0.3"]),  # one of them by its own name
        ("10.89.0.2", "web", ["10.89.0.2"]),  # one of them that asks itself
        ("10.89.0.4", "web", ["10.89.0.254", "10.89.1.3"]),  # of another network as it is
        ("10.89.0.2", "mixed", ["10.89.0.4", "10.89.0.5"]),  # another has the name, too
        ("10.89.0.2", "tasks.d", ["10.89.0.5"]),  # somebody's name
    ],
)
def test_virtual_addresses(client: str, name: str, expected: list[str]) -> None:
    query = dns.message.make_query(name, "A")
    answer = SHARED.answer(query.to_wire(), client)
    assert isinstance(answer, bytes)
    found = dns.message.from_wire(answer).answer
    assert sorted(str(item) for rrset in found for item in rrset) == expected


def test_a_virtual_address_has_a_name() -> None:
    query = dns.message.make_query(dns.reversename.from_address("10.89.0.254"), "PTR")
    answer = SHARED.answer(query.to_wire(), "10.89.0.5")
    assert isinstance(answer, bytes)
    assert "web.app_one." in dns.message.from_wire(answer).to_text()
