from __future__ import annotations

from gemel.net.resolv import HostResolver, hosts_file, parse, resolv_conf

HOST = "# comment\nnameserver 192.0.2.53 # x\nsearch a.example b.example\noptions edns0\n"


def test_parse() -> None:
    assert parse(HOST) == HostResolver(("192.0.2.53",), ("a.example", "b.example"), ("edns0",))
    assert parse("nameserver\n\nnonsense x\ndomain one\n").search == ("one",)


def test_resolv_conf() -> None:
    gateways = ["10.89.0.1", "10.89.1.1"]
    assert resolv_conf(gateways, host=HOST) == (
        "nameserver 10.89.0.1\nsearch a.example b.example\noptions ndots:0\n"
    )
    own = resolv_conf(gateways, dns=["9.9.9.9"], search=["x"], options=["ndots:2"], host=HOST)
    assert own == "nameserver 10.89.0.1\nsearch x\noptions ndots:2\n"
    assert resolv_conf(gateways, search=["."]) == "nameserver 10.89.0.1\noptions ndots:0\n"
    assert resolv_conf([], host=HOST) == (
        "nameserver 192.0.2.53\nsearch a.example b.example\noptions edns0\n"
    )
    assert resolv_conf([], dns=["9.9.9.9"]) == "nameserver 9.9.9.9\n"


def test_hosts_file() -> None:
    extra = ["db:10.0.0.5", "six=[fd00::1]", "seven:fd00::2", "up:host-gateway"]
    text = hosts_file("web", ["10.89.0.2"], extra_hosts=extra, gateway="10.89.0.1")
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-5:] == [
        "10.0.0.5\tdb",
        "fd00::1\tsix",
        "fd00::2\tseven",
        "10.89.0.1\tup",
        "10.89.0.2\tweb",
    ]
    named = hosts_file("web", ["10.89.0.2"], domainname="example.org")
    assert named.endswith("10.89.0.2\tweb.example.org web\n")
    assert hosts_file("web", []).endswith("127.0.1.1\tweb\n")
