"""/etc/resolv.conf and /etc/hosts of an instance. Pure.

Name servers given by a user (HostConfig.Dns) do not appear here: the instance
asks gemel's DNS server, which asks those for names outside (``Endpoint.dns``),
as Docker's does. So names of services work whatever the user sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class HostResolver(NamedTuple):
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> HostResolver:
    """Reads a resolv.conf as resolver(5) has it (the last ``search`` or ``domain`` counts)."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return HostResolver(tuple(servers), search, tuple(options))


def resolv_conf(
    gateways: Sequence[str],
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host: str = "",
) -> str:
    """Content of /etc/resolv.conf.

    gateways: of the instance's networks, first the one that is asked; without
    any (network none, host) the file names ``dns``, else the host's servers.
    search, options: the user's; without, the host's search list and ndots:0.
    A search list of ``.`` means none, as in Docker. host: the host's own file.
    """
    known = parse(host)
    servers = gateways[:1] or tuple(dns) or known.servers
    domains = tuple(search) or known.search
    if tuple(domains) == (".",):
        domains = ()
    chosen = tuple(options) or (("ndots:0",) if gateways else known.options)
    lines = [f"nameserver {server}" for server in servers]
    if domains:
        lines.append("search " + " ".join(domains))
    if chosen:
        lines.append("options " + " ".join(chosen))
    return "\n".join(lines) + "\n"


def hosts_file(
    hostname: str,
    addresses: Sequence[str],
    *,
    domainname: str = "",
    extra_hosts: Sequence[str] = (),
    gateway: str = "",
) -> str:
    """Content of /etc/hosts.

    addresses: the instance's own, without prefix length. extra_hosts: Docker's
    ``name:address`` (or ``name=address``); the address ``host-gateway`` stands
    for ``gateway``.
    """
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    for entry in extra_hosts:
        name, address = split_extra_host(entry)
        if address == "host-gateway":
            address = gateway
        if address:
            lines.append(f"{address}\t{name}")
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    own = list(addresses) or ["127.0.1.1"]
    lines.extend(f"{address}\t{names}" for address in own if hostname)
    return "\n".join(lines) + "\n"


def split_extra_host(entry: str) -> tuple[str, str]:
    """Name and address of ``name:address`` or ``name=address`` (an IPv6 one may be in [])."""
    for separator in ("=", ":"):
        name, found, address = entry.partition(separator)
        if found:
            return name.strip(), address.strip().strip("[]")
    return entry.strip(), ""
