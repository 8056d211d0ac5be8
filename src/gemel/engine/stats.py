"""One sample of a container's use, in Docker's shape (GET /containers/ID/stats)."""

from __future__ import annotations

import os
import time

from gemel.engine import spec
from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.engine.records import Container, now, stamp
from gemel.host import netstat
from gemel.model.instance import Usage

CPUS = os.cpu_count() or 1
HERTZ = os.sysconf("SC_CLK_TCK")


def _host_cpu_ns() -> int:
    with open("/proc/stat", "rb") as table:
        fields = table.readline().split()[1:9]
    return sum(int(field) for field in fields) * (1_000_000_000 // HERTZ)


def _cpu(usage: Usage, total: int, host: int) -> Json:
    return {
        "cpu_usage": {
            "total_usage": total,
            "usage_in_kernelmode": usage.system_ns,
            "usage_in_usermode": usage.user_ns,
        },
        "system_cpu_usage": host,
        "online_cpus": CPUS,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


async def sample(core: Core, one: Container) -> Json:
    """Raises GemelError where the runtime cannot tell."""
    live = core.live[one.id]
    usage = Usage(cpu_ns=0)
    if one.state.running:
        usage = await core.runtime(one).usage(one.id)
    host = _host_cpu_ns()
    before = live.stats or (usage.cpu_ns, host)
    live.stats = (usage.cpu_ns, host)
    networks = {}
    if one.state.running:
        counters = netstat.counters()
        for interface in spec.interfaces(core, one):
            # seen from the bridge's side: what it received, the instance sent
            if interface.host in counters:
                received, sent = counters[interface.host]
                networks[interface.name] = _network(sent, received)
    limit = usage.memory_limit or netstat.host_memory()
    return {
        "read": now(),
        "preread": stamp(time.time_ns() - 1_000_000_000),
        "id": one.id,
        "name": f"/{one.name}",
        "num_procs": 0,
        "pids_stats": {
            "current": usage.pids,
            **({"limit": usage.pids_limit} if usage.pids_limit else {}),
        },
        "cpu_stats": _cpu(usage, usage.cpu_ns, host),
        "precpu_stats": _cpu(usage, before[0], before[1]),
        "memory_stats": {
            "usage": usage.memory,
            "max_usage": usage.memory_peak,
            "limit": limit,
            "stats": usage.memory_stats,
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 0, "minor": 0, "op": "read", "value": usage.read_bytes},
                {"major": 0, "minor": 0, "op": "write", "value": usage.write_bytes},
            ]
        },
        "networks": networks,
        "storage_stats": {},
        "runtime": one.runtime.value,
        "true_memory": usage.true_memory,
    }


def _network(received: tuple[int, int, int, int], sent: tuple[int, int, int, int]) -> Json:
    names = ("bytes", "packets", "errors", "dropped")
    return {f"rx_{n}": v for n, v in zip(names, received, strict=True)} | {
        f"tx_{n}": v for n, v in zip(names, sent, strict=True)
    }
