"""One address for several instances: virtual addresses of services, shared host ports. Pure.

A table of its own, family ip, replaced whole with every change:

    prerouting, output   a new connection to a virtual address, from its own network or from
                         the host, leads to one of the ready instances in turn; so does one to
                         a host port that several instances publish
    postrouting          who calls by a virtual address is seen with his own address; an
                         instance that reaches itself is seen as the gateway, or its answer
                         would not come back this way
    input                nothing of the host answers on a virtual address

Connections that are open are the kernel's (conntrack): they go on to their instance when
the table changes, and when the engine is gone. Callers and instances are on one bridge, so
answers pass the translation only where the bridge hands its packets to the ip hooks
(br_netfilter): see ``links.translate``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gemel.model.network import Balanced, Endpoint, NetworkInfo, PublishedPort


class Shared(msgspec.Struct, frozen=True):
    """A virtual address. targets: the instances that new connections go to."""

    bridge: str
    address: str
    targets: tuple[str, ...]


class SharedPort(msgspec.Struct, frozen=True):
    """A host port of several instances. targets: address and port of each."""

    host_ip: str
    host_port: int
    protocol: str
    targets: tuple[tuple[str, int], ...]


class Plan(msgspec.Struct, frozen=True):
    """What the table is to hold."""

    addresses: tuple[Shared, ...] = ()
    ports: tuple[SharedPort, ...] = ()


def _ready(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that are ready; all if none is, as names do."""
    found = list(endpoints)
    return [one for one in found if one.ready] or found


def plan(
    balanced: Sequence[Balanced],
    endpoints: Sequence[Endpoint],
    ports: Sequence[PublishedPort],
    networks: Mapping[str, NetworkInfo],
) -> Plan:
    """What the table is to hold, from what there is."""
    addresses = []
    for one in sorted(balanced, key=lambda one: (one.network_id, one.address)):
        network = networks.get(one.network_id)
        members = [
            end
            for end in endpoints
            if end.network_id == one.network_id and end.instance_id in one.instances
        ]
        if network is not None:
            targets = tuple(sorted(end.address for end in _ready(members)))
            addresses.append(Shared(network.bridge, one.address, targets))
    return Plan(tuple(addresses), tuple(_shared_ports(ports, endpoints)))


def _shared_ports(
    ports: Sequence[PublishedPort], endpoints: Sequence[Endpoint]
) -> Iterable[SharedPort]:
    ready = {(end.instance_id, end.address) for end in endpoints if end.ready}
    groups: dict[tuple[str, int, str], list[PublishedPort]] = {}
    for port in ports:
        key = (port.host_ip or "0.0.0.0", port.host_port, port.protocol)
        groups.setdefault(key, []).append(port)
    for key in sorted(groups):
        group = groups[key]
        if len(group) < 2 or any(not port.instance_id for port in group):
            continue
        open_ones = [port for port in group if (port.instance_id, port.address) in ready]
        targets = sorted({(port.address, port.port) for port in open_ones or group})
        yield SharedPort(*key, tuple(targets))


def ruleset(table: str, wanted: Plan) -> str:
    """Text for ``nft -f -``: replaces the whole table; removes it if nothing is wanted."""
    if not wanted.addresses and not wanted.ports:
        return removal(table)
    known = [one for one in wanted.addresses if one.targets]
    lines = [f"table ip {table} {{", *_sets(wanted)]
    for number, one in enumerate(known):
        lines += _chain(f"address{number}", "{ tcp, udp }", [*one.targets])
    for number, port in enumerate(wanted.ports):
        targets = [f"{address} . {inner}" for address, inner in port.targets]
        lines += _chain(f"port{number}", port.protocol, targets)
    within = [f'"{one.bridge}" . {one.address} : goto address{n}' for n, one in enumerate(known)]
    host = [f"{one.address} : goto address{n}" for n, one in enumerate(known)]
    lines += _hook("prerouting", _vmap("iifname . ip daddr", within), wanted.ports)
    lines += _hook("output", _vmap("ip daddr", host), wanted.ports)
    if wanted.addresses:
        lines += _ENDS
    return removal(table) + "\n".join([*lines, "}"]) + "\n"


#: Before the main table's (srcnat): a connection that has been seen to is not translated again.
_ENDS = [
    "    chain postrouting {",
    "        type nat hook postrouting priority srcnat - 1; policy accept;",
    "        ip saddr . ip daddr @self masquerade",
    "        ct original ip daddr @virtual ip saddr != @virtual snat to ip saddr",
    "    }",
    "    chain input {",
    "        type filter hook input priority filter; policy accept;",
    "        ct direction original ip daddr @virtual meta l4proto tcp reject with tcp reset",
    "        ct direction original ip daddr @virtual meta l4proto udp reject",
    "    }",
]


def _sets(wanted: Plan) -> list[str]:
    """The virtual addresses, and each target beside itself."""
    if not wanted.addresses:
        return []
    lines = _set("virtual", "ipv4_addr", [one.address for one in wanted.addresses])
    own = sorted({f"{to} . {to}" for one in wanted.addresses for to in one.targets})
    return lines + _set("self", "ipv4_addr . ipv4_addr", own)


def _set(name: str, kind: str, elements: Sequence[str]) -> list[str]:
    listed = [f"        elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"    set {name} {{", f"        type {kind}", *listed, "    }"]


def _chain(name: str, protocols: str, targets: Sequence[str]) -> list[str]:
    if len(targets) == 1:
        to = targets[0].replace(" . ", ":")
    else:
        listed = ", ".join(f"{n} : {target}" for n, target in enumerate(targets))
        to = f"numgen inc mod {len(targets)} map {{ {listed} }}"
    dnat = "dnat to" if len(targets) == 1 else "dnat ip to"
    return [f"    chain {name} {{", f"        meta l4proto {protocols} {dnat} {to}", "    }"]


def _vmap(match: str, elements: Sequence[str]) -> list[str]:
    return [f"        {match} vmap {{ {', '.join(elements)} }}"] if elements else []


def _hook(hook: str, first: list[str], ports: Sequence[SharedPort]) -> list[str]:
    """A chain that runs before the main table's (dstnat)."""
    single, every = [], []
    for number, port in enumerate(ports):
        key = f"{port.protocol} . {port.host_port} : goto port{number}"
        if port.host_ip == "0.0.0.0":
            every.append(key)
        else:
            single.append(f"{port.host_ip} . {key}")
    local = "fib daddr type local ip protocol { tcp, udp }"
    return [
        f"    chain {hook} {{",
        f"        type nat hook {hook} priority -101; policy accept;",
        *first,
        *_vmap(f"{local} ip daddr . ip protocol . th dport", single),
        *_vmap(f"{local} ip protocol . th dport", every),
        "    }",
    ]


def removal(table: str) -> str:
    """Text for ``nft -f -``: removes the table, whether it is there or not."""
    return f"table ip {table} {{}}\ndelete table ip {table}\n"


def forgotten(before: Plan, after: Plan) -> list[list[str]]:
    """What UDP flows to end, as conntrack takes it: those to targets that are none any more.

    The kernel would lead whoever goes on sending to an instance that is not there.
    """
    gone = []
    left = {one.address: set(one.targets) for one in after.addresses}
    for one in before.addresses:
        for to in sorted(set(one.targets) - left.get(one.address, set())):
            gone.append(["-D", "-p", "udp", "--orig-dst", one.address, "--reply-src", to])
    kept = {(p.host_ip, p.host_port): set(p.targets) for p in after.ports if p.protocol == "udp"}
    for port in before.ports:
        if port.protocol == "udp":
            stay = kept.get((port.host_ip, port.host_port), set())
            for address, _ in sorted(set(port.targets) - stay):
                number = str(port.host_port)
                gone.append(["-D", "-p", "udp", "--orig-port-dst", number, "--reply-src", address])
    return gone
