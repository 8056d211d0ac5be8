from __future__ import annotations

import pytest

from gemel.errors import Conflict
from gemel.host import run
from gemel.model.network import Balanced, Endpoint, NetworkInfo, PublishedPort
from gemel.net import balance
from gemel.net.balance import Plan, Shared, SharedPort
from gemel.net.reserve import Reservations

NET = NetworkInfo(id="n", name="n", bridge="gm-n", subnet="10.89.0.0/24", gateway="10.89.0.1")


def end(instance: str, address: str, ready: bool = True) -> Endpoint:
    return Endpoint(
        network_id="n", instance_id=instance, address=address, mac="", names=("web",), ready=ready
    )


def port(instance: str, address: str, number: int = 80, protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(
        host_ip="127.0.0.1",
        host_port=8080,
        protocol=protocol,
        address=address,
        port=number,
        instance_id=instance,
    )


VIRTUAL = Balanced(network_id="n", name="web", address="10.89.0.254", instances=("a", "b", "c"))
ENDS = [end("a", "10.89.0.2"), end("b", "10.89.0.3", False), end("x", "10.89.0.9")]


def test_new_connections_go_to_those_that_are_ready() -> None:
    made = balance.plan([VIRTUAL], ENDS, [], {"n": NET})
    assert made.addresses == (Shared("gm-n", "10.89.0.254", ("10.89.0.2",)),)


def test_if_none_is_ready_to_all() -> None:
    ends = [end("a", "10.89.0.2", False), end("b", "10.89.0.3", False)]
    made = balance.plan([VIRTUAL], ends, [], {"n": NET})
    assert made.addresses[0].targets == ("10.89.0.2", "10.89.0.3")


def test_an_address_of_a_network_that_is_gone_is_left_out() -> None:
    assert balance.plan([VIRTUAL], ENDS, [], {}) == Plan()


def test_a_port_of_several_leads_to_those_that_are_ready() -> None:
    ports = [port("a", "10.89.0.2"), port("b", "10.89.0.3"), port("x", "10.89.0.9", 81)]
    made = balance.plan([], ENDS, ports, {"n": NET})
    targets = (("10.89.0.2", 80), ("10.89.0.9", 81))
    assert made.ports == (SharedPort("127.0.0.1", 8080, "tcp", targets),)
    assert balance.plan([], ENDS, ports[:1], {"n": NET}) == Plan()  # the main table's


def test_udp_flows_to_who_is_no_target_any_more_are_ended() -> None:
    before = balance.plan(
        [VIRTUAL],
        [end("a", "10.89.0.2"), end("b", "10.89.0.3")],
        [port("a", "10.89.0.2", 53, "udp"), port("b", "10.89.0.3", 53, "udp")],
        {"n": NET},
    )
    after = balance.plan([VIRTUAL], ENDS, [], {"n": NET})
    assert balance.forgotten(before, before) == []
    orders = [" ".join(order) for order in balance.forgotten(before, after)]
    assert orders == [
        "-D -p udp --orig-dst 10.89.0.254 --reply-src 10.89.0.3",
        "-D -p udp --orig-port-dst 8080 --reply-src 10.89.0.2",
        "-D -p udp --orig-port-dst 8080 --reply-src 10.89.0.3",
    ]


PLANS = [
    Plan(),
    Plan((Shared("gm-n", "10.89.0.254", ()),)),
    Plan(
        (
            Shared("gm-n", "10.89.0.254", ("10.89.0.2",)),
            Shared("gm-n", "10.89.0.253", ("1.2.3.4", "10.89.0.3")),
        )
    ),
    Plan((), (SharedPort("0.0.0.0", 80, "udp", (("10.89.0.2", 80), ("10.89.0.3", 81))),)),
    Plan(
        (Shared("gm-n", "10.89.0.254", ("10.89.0.2", "10.89.0.3")),),
        (SharedPort("127.0.0.1", 80, "tcp", (("10.89.0.2", 80), ("10.89.0.3", 81))),),
    ),
]


@pytest.mark.parametrize("plan", PLANS)
def test_only_the_own_table_is_named(plan: Plan) -> None:
    for line in balance.ruleset("mine", plan).splitlines():
        if line and not line.startswith((" ", "}")):
            assert "ip mine" in line


@pytest.mark.root
async def test_nft_takes_it() -> None:
    for plan in [*PLANS, Plan()]:
        await run.run(["nft", "-f", "-"], input=balance.ruleset("gemel-lb-t", plan).encode())


def test_allied_instances_hold_a_port_together() -> None:
    held = Reservations(allied=lambda one, other: {one, other} == {"a", "b"})
    number = held.choose("127.0.0.1", "tcp")
    mine = PublishedPort(
        host_ip="127.0.0.1", host_port=number, protocol="tcp", address="", port=80, instance_id="a"
    )
    other = PublishedPort(**{**_fields(mine), "instance_id": "b"})
    foreign = PublishedPort(**{**_fields(mine), "instance_id": "c"})
    try:
        held.reserve(mine)
        with pytest.raises(Conflict):
            held.reserve(other, shared=False)
        held.reserve(other)
        with pytest.raises(Conflict):
            held.reserve(foreign)
        held.release(mine)
        with pytest.raises(Conflict):
            held.reserve(foreign)  # the other one still has it
        held.hand_over(foreign, "b")
        with pytest.raises(Conflict):
            held.reserve(other)
        held.release(foreign)
        held.reserve(other)
    finally:
        held.close()


def _fields(port: PublishedPort) -> dict[str, object]:
    return {name: getattr(port, name) for name in port.__struct_fields__}
