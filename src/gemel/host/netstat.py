"""Figures of the host that the kernel tells in /proc."""

from __future__ import annotations

#: ::1 as /proc/net/tcp6 writes it.
_LOOPBACK6 = "00000000000000000000000001000000"

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


def tcp(pid: int) -> tuple[set[int], set[int]]:
    """TCP ports of a process's network namespace: listened on, and with a connection.

    Both are empty if the process is gone; what listens on 127.0.0.0/8 or ::1 only is left out.
    """
    listening: set[int] = set()
    connected: set[int] = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            address, _, port = line.split()[1].partition(":")
            state = line.split()[3]
            local = address.endswith("7F") if table == "tcp" else address == _LOOPBACK6
            if state == "0A" and not local:
                listening.add(int(port, 16))
            elif state == "01" and not local:
                connected.add(int(port, 16))
    return listening, connected


def host_memory() -> int:
    """Bytes of memory that the host has."""
    with open("/proc/meminfo", encoding="ascii") as table:
        for line in table:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    return 0
