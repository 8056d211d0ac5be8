"""Figures of the host that the kernel tells in /proc."""

from __future__ import annotations

Counters = tuple[int, int, int, int]


def counters() -> dict[str, tuple[Counters, Counters]]:
    """Received and sent (bytes, packets, errors, dropped) by interface of this namespace."""
    result: dict[str, tuple[Counters, Counters]] = {}
    with open("/proc/thread-self/net/dev", encoding="ascii") as table:
        for line in list(table)[2:]:
            name, _, rest = line.partition(":")
            f = [int(field) for field in rest.split()]
            result[name.strip()] = ((f[0], f[1], f[2], f[3]), (f[8], f[9], f[10], f[11]))
    return result


def host_memory() -> int:
    """Bytes of memory that the host has."""
    with open("/proc/meminfo", encoding="ascii") as table:
        for line in table:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    return 0
