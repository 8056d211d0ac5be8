"""Which names get a virtual address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gemel.engine import balancing, peers
from gemel.engine.core import Core
from gemel.engine.records import Container, EndpointRecord
from gemel.model.docker import CreateRequest, EndpointSettings
from gemel.model.instance import RuntimeName
from gemel.model.network import NetworkInfo
from gemel.observe.capture.records import Peer

COMPOSE = "com.docker.compose."


class Kept:
    """A store that remembers."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def put(self, kind: str, key: str, value: Any) -> None:
        self.values[key] = value

    async def delete(self, kind: str, keys: list[str]) -> None:
        for key in keys:
            self.values.pop(key, None)

    async def all(self, kind: str, type: Any) -> list[Any]:
        return list(self.values.values())


def network(subnet: str = "10.89.0.0/24", **more: Any) -> NetworkInfo:
    gateway = subnet.rpartition(".")[0] + ".1"
    return NetworkInfo(id="n", name="n", bridge="gm-n", subnet=subnet, gateway=gateway, **more)


def core_of(*containers: Container, net: NetworkInfo | None = None) -> Core:
    made = SimpleNamespace(
        containers={one.id: one for one in containers},
        networks={"n": net or network()},
        virtual={},
        store=Kept(),
    )
    used = {end.address for one in containers for end in one.endpoints}
    made.addresses_used = lambda network: used | set(made.virtual.values())
    return cast(Core, made)


def replica(service: str, number: int, *aliases: str, **labels: str) -> Container:
    name = f"app-{service}-{number}"
    end = EndpointRecord(
        network_id="n",
        network_name="n",
        settings=EndpointSettings(aliases=[name, service, *aliases]),
        endpoint_id="e",
        address=f"10.89.0.{len(service) * 10 + number}",
    )
    own = {
        COMPOSE + "project": "app",
        COMPOSE + "service": service,
        COMPOSE + "oneoff": "False",
        COMPOSE + "container-number": str(number),
        **labels,
    }
    return Container(
        id=f"{service}{number}{len(labels)}",
        name=name,
        created="",
        request=CreateRequest(labels=own),
        image_id="",
        image_ref="",
        runtime=RuntimeName.CONTAINER,
        argv=[],
        endpoints=[end],
    )


async def names(core: Core) -> dict[str, str]:
    return {one.name: one.address for one in await balancing.refresh(core)}


async def test_a_name_of_two_replicas_gets_one_and_keeps_it() -> None:
    core = core_of(replica("web", 1), replica("web", 2), replica("db", 1))
    assert await names(core) == {"web": "10.89.0.254"}
    del core.containers["web20"]
    assert await names(core) == {"web": "10.89.0.254"}  # scaled down: whoever was told it goes on
    again = core_of(replica("web", 1))
    again.store = core.store
    await balancing.load(again)
    assert await names(again) == {"web": "10.89.0.254"}  # so does the next engine
    again.containers.clear()
    assert await names(again) == {}
    assert cast(Any, core.store).values == {}


async def test_an_instance_and_its_successor_are_one() -> None:
    core = core_of(replica("web", 1), replica("web", 1, note="new"))
    assert await names(core) == {}


async def test_an_alias_of_two_services_and_what_is_left_out() -> None:
    dnsrr = {balancing.MODE: "dnsrr"}
    core = core_of(
        replica("a", 1, "Both"),
        replica("bb", 1, "Both"),
        replica("ccc", 1, **dnsrr),
        replica("ccc", 2, **dnsrr),
        replica("dddd", 1, **{COMPOSE + "oneoff": "True"}),
        replica("dddd", 2, **{COMPOSE + "oneoff": "True"}),
    )
    assert await names(core) == {"both": "10.89.0.254"}
    every = set(core.containers)
    assert balancing.owned(core, every) == [("n", "10.89.0.254")]
    assert balancing.owned(core, {core_id for core_id in every if core_id.startswith("a")}) == []


async def test_a_full_network_goes_without_and_an_address_is_yielded() -> None:
    full = core_of(replica("web", 1), replica("web", 2), net=network(ip_range="10.89.0.31/32"))
    assert await names(full) == {}
    core = core_of(replica("web", 1), replica("web", 2))
    await balancing.refresh(core)
    balancing.yield_address(core, core.networks["n"], "10.89.0.254")
    core.containers["x"] = replica("other", 1)
    core.containers["x"].endpoints[0].address = "10.89.0.254"
    core.addresses_used = lambda network: {"10.89.0.254"}  # type: ignore[method-assign]
    assert await names(core) == {"web": "10.89.0.253"}


async def test_virtual_addresses_as_ends_of_calls() -> None:
    core = core_of(replica("web", 1, "all"), replica("web", 2), replica("api", 3, "all"))
    await balancing.refresh(core)
    assert sorted(peers.virtual(core).values(), key=lambda one: one.name) == [
        Peer(name="all", service="all", project="app"),  # of two services: the name
        Peer(name="web", service="web", project="app"),
    ]
