"""The engine's nftables table as text, made from what is to be. Pure.

One table per engine, of family ip. What it does, hook by hook:

    raw       an instance reaches 127.0.0.0/8 of the host never (bridges have route_localnet)
    prerouting, output   published ports lead to their instance, also those of 127.0.0.1
    forward   between networks nothing but published ports; into a network nothing but
              published ports and answers; from an internal network nothing; to private
              ranges beyond the host nothing, unless that is allowed
    postrouting   what leaves a network carries the host's address; so does what an instance
              sends to its own network by way of a published port, and what comes from
              127.0.0.1 (or the answer would go astray)

The chains never change: networks and ports are elements of sets and maps. So a
packet's cost does not grow with their number, and no change touches a chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gemel.model.network import NetworkInfo, PublishedPort
from gemel.net.names import BRIDGE_PREFIX

#: Where an instance may not go by default, gemel's own networks apart.
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _ports(ports: Sequence[PublishedPort]) -> tuple[list[str], list[str]]:
    """Elements of the two maps: ports of all addresses, ports of one address.

    A host port is led to one instance only: the first one stays if two claim it.
    """
    everywhere: dict[str, str] = {}
    single: dict[str, str] = {}
    for port in ports:
        target = f"{port.address} . {port.port}"
        if port.host_ip in ("", "0.0.0.0"):
            everywhere.setdefault(f"{port.protocol} . {port.host_port}", target)
        else:
            key = f"{port.host_ip} . {port.protocol} . {port.host_port}"
            single.setdefault(key, target)
    return (
        [f"{key} : {target}" for key, target in everywhere.items()],
        [f"{key} : {target}" for key, target in single.items()],
    )


def _translation(hook: str) -> list[str]:
    one = "dnat ip to ip daddr . ip protocol . th dport map @published"
    every = "dnat ip to ip protocol . th dport map @published_everywhere"
    return [
        f"    chain {hook} {{",
        f"        type nat hook {hook} priority -100; policy accept;",
        f"        fib daddr type local ip protocol {{ tcp, udp }} {one}",
        f"        fib daddr type local ip protocol {{ tcp, udp }} {every}",
        "    }",
    ]


def _forward(allow_private: bool) -> list[str]:
    lines = [
        "    chain forward {",
        "        type filter hook forward priority filter; policy accept;",
        "        iifname != @bridges oifname != @bridges accept",
        "        iifname . oifname @within accept",
        "        ct state established,related accept",
        "        ct state invalid drop",
        "        iifname @internal drop",
        "        oifname @internal drop",
        "        ct status dnat accept",
        f'        oifname "{BRIDGE_PREFIX}*" drop',
    ]
    if not allow_private:
        lines.append("        ip daddr @private drop")
    return [*lines, "    }"]


_ADDRESS = "ipv4_addr . inet_service"
_SETS = (
    ("set", "bridges", "ifname", ""),
    ("set", "internal", "ifname", ""),
    ("set", "within", "ifname . ifname", ""),
    ("set", "outward", "ipv4_addr", "interval"),
    ("set", "home", "ipv4_addr . ifname", "interval"),
    ("map", "published_everywhere", f"inet_proto . inet_service : {_ADDRESS}", ""),
    ("map", "published", f"ipv4_addr . inet_proto . inet_service : {_ADDRESS}", ""),
)


def _collection(keyword: str, name: str, kind: str, flags: str) -> list[str]:
    lines = [f"    {keyword} {name} {{", f"        type {kind}"]
    if flags:
        lines.append(f"        flags {flags}")
    return [*lines, "    }"]


def elements(table: str, networks: Sequence[NetworkInfo], ports: Sequence[PublishedPort]) -> str:
    """Text for ``nft -f -``: sets the table's networks and ports to these, in one transaction."""
    bridges = [network.bridge for network in networks]
    everywhere, single = _ports(ports)
    content = {
        "bridges": _quoted(bridges),
        "internal": _quoted(network.bridge for network in networks if network.internal),
        "within": [f'"{name}" . "{name}"' for name in bridges],
        "outward": [network.subnet for network in networks if not network.internal],
        "home": [f'{network.subnet} . "{network.bridge}"' for network in networks],
        "published_everywhere": everywhere,
        "published": single,
    }
    lines = []
    for keyword, name, _, _ in _SETS:
        lines.append(f"flush {keyword} ip {table} {name}")
        if content[name]:
            listed = ", ".join(sorted(set(content[name])))
            lines.append(f"add element ip {table} {name} {{ {listed} }}")
    return "\n".join(lines) + "\n"


def ruleset(
    table: str,
    networks: Sequence[NetworkInfo],
    ports: Sequence[PublishedPort],
    *,
    allow_private: bool = False,
) -> str:
    """Text for ``nft -f -``: replaces the whole table ``ip NAME`` in one transaction."""
    private = ", ".join(PRIVATE)
    lines = [
        f"table ip {table} {{",
        *(line for entry in _SETS for line in _collection(*entry)),
        "    set private {",
        "        type ipv4_addr",
        "        flags interval",
        f"        elements = {{ {private} }}",
        "    }",
        "    chain raw {",
        "        type filter hook prerouting priority raw; policy accept;",
        "        iifname @bridges ip daddr 127.0.0.0/8 drop",
        "    }",
        *_translation("prerouting"),
        *_translation("output"),
        *_forward(allow_private),
        "    chain postrouting {",
        "        type nat hook postrouting priority srcnat; policy accept;",
        "        ip saddr 127.0.0.0/8 oifname @bridges masquerade",
        "        ct status dnat ip saddr . oifname @home masquerade",
        "        ip saddr @outward ip saddr . oifname != @home masquerade",
        "    }",
        "}",
    ]
    return removal(table) + "\n".join(lines) + "\n" + elements(table, networks, ports)


def removal(table: str) -> str:
    """Text for ``nft -f -``: removes the table, whether it is there or not."""
    return f"table ip {table} {{}}\ndelete table ip {table}\n"
