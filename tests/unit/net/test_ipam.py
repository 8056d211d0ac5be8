from __future__ import annotations

import pytest

from gemel.errors import Conflict, InvalidInput, Unavailable, Unsupported
from gemel.model.network import NetworkInfo
from gemel.net import ipam, names


def network(subnet: str, **more: object) -> NetworkInfo:
    values: dict[str, object] = {
        "id": "ab" * 32,
        "name": "n",
        "bridge": "gm-ababababab",
        "subnet": subnet,
        "gateway": subnet.split("/")[0][:-1] + "1",
    }
    return NetworkInfo(**{**values, **more})  # type: ignore[arg-type]


def test_subnets_follow_each_other_and_keep_clear_of_the_host() -> None:
    assert ipam.allocate_subnet([]) == ("10.89.0.0/24", "10.89.0.1")
    some = [network("10.89.0.0/24"), network("10.89.2.0/24")]
    assert ipam.allocate_subnet(some) == ("10.89.1.0/24", "10.89.1.1")
    assert ipam.allocate_subnet(some, ["10.89.0.0/22"]) == ("10.89.4.0/24", "10.89.4.1")
    assert ipam.allocate_subnet([], ["10.0.0.0/8"]) == ("192.168.128.0/24", "192.168.128.1")
    assert ipam.allocate_subnet([], ["10.89.0.7/32"]) == ("10.89.1.0/24", "10.89.1.1")


def test_all_subnets_taken() -> None:
    with pytest.raises(Unavailable, match="non-overlapping"):
        ipam.allocate_subnet([], ["10.1.0.0/16"], [("10.1.0.0/24", 28)])


@pytest.mark.parametrize(
    ("subnet", "gateway", "ip_range", "error"),
    [
        ("10.1.0.0", "", "", InvalidInput),
        ("10.1.0.5/24", "", "", InvalidInput),
        ("nonsense", "", "", InvalidInput),
        ("fd00::/64", "", "", Unsupported),
        ("10.1.0.0/31", "", "", InvalidInput),
        ("10.1.0.0/24", "10.2.0.1", "", InvalidInput),
        ("10.1.0.0/24", "10.1.0.255", "", InvalidInput),
        ("10.1.0.0/24", "", "10.2.0.0/28", InvalidInput),
        ("10.9.0.0/16", "", "", Conflict),
        ("172.16.0.0/16", "", "", Conflict),
    ],
)
def test_bad_subnets(subnet: str, gateway: str, ip_range: str, error: type[Exception]) -> None:
    existing = [network("10.9.1.0/24")]
    with pytest.raises(error):
        ipam.check_subnet(subnet, gateway, ip_range, existing, ["172.16.5.0/24"])


def test_good_subnet() -> None:
    assert ipam.check_subnet("10.1.0.0/24", "", "", []) == ("10.1.0.0/24", "10.1.0.1")
    asked = ipam.check_subnet("10.1.0.0/24", "10.1.0.254", "10.1.0.128/25", [])
    assert asked == ("10.1.0.0/24", "10.1.0.254")


def test_addresses() -> None:
    net = network("10.1.0.0/29", aux={"router": "10.1.0.2"})
    assert ipam.allocate_address(net, []) == "10.1.0.3"
    assert ipam.allocate_address(net, [], "10.1.0.6") == "10.1.0.6"
    # not at once the one that has become free, but after all others
    assert ipam.allocate_address(net, ["10.1.0.5"], after="10.1.0.4") == "10.1.0.6"
    assert ipam.allocate_address(net, [], after="10.1.0.6") == "10.1.0.3"
    full = {f"10.1.0.{n}" for n in range(3, 7)}
    with pytest.raises(Unavailable):
        ipam.allocate_address(net, full)
    for taken in ("10.1.0.1", "10.1.0.2", "10.1.0.3"):
        with pytest.raises(Conflict, match="Address already in use"):
            ipam.allocate_address(net, {"10.1.0.3"}, taken)
    for wrong in ("10.1.1.3", "10.1.0.0", "10.1.0.7", "x", "::1"):
        with pytest.raises(InvalidInput):
            ipam.allocate_address(net, [], wrong)
    ranged = network("10.1.0.0/24", ip_range="10.1.0.64/30")
    assert ipam.allocate_address(ranged, ["10.1.0.64"]) == "10.1.0.65"


def test_names_fit_the_kernel() -> None:
    id = "0123456789abcdef" * 4
    assert names.bridge_name(id) == "gm-0123456789"
    assert names.port_name(id, 0) == "gp0123456789-0"
    assert len(names.port_name(id, 99)) == 15
    assert names.port_name(id, 3).startswith(names.port_prefix(id))
    assert names.mac_for("10.89.0.255") == "02:42:0a:59:00:ff"
    with pytest.raises(ValueError, match="range"):
        names.port_name(id, 100)
