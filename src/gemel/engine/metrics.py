"""The engine's and every instance's figures in Prometheus' text format.

Names and units by its conventions: base units, _total for counters.
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from gemel import __version__
from gemel.engine import otelmetrics, spec
from gemel.engine.core import Core
from gemel.engine.peers import peer
from gemel.engine.records import Container, parse_stamp
from gemel.errors import GemelError
from gemel.host import netstat
from gemel.model.instance import Usage
from gemel.observe.capture.records import BUCKETS, Edge, Sums
from gemel.observe.tracing.records import Point
from gemel.observe.traffic import Traffic

#: Seconds that an instance has to tell what it uses.
_PATIENCE = 2.0

Labels = dict[str, str]


class Page:
    """Samples by family; each family is written once, with its help and type."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, help: str, value: float, labels: Labels) -> None:
        """One sample of a counter or gauge."""
        self._family(name, kind, help).append(f"{name}{_labels(labels)} {_number(value)}")

    def histogram(self, name: str, help: str, edge: Edge, labels: Labels) -> None:
        """A histogram of seconds of an edge."""
        self.buckets(name, help, labels, BUCKETS, edge.buckets, edge.count, edge.seconds)

    def buckets(
        self,
        name: str,
        help: str,
        labels: Labels,
        bounds: Sequence[float],
        counts: Sequence[int],
        count: int,
        total: float,
    ) -> None:
        """A histogram; its buckets are summed up here. What is above all bounds may be left out."""
        lines = self._family(name, "histogram", help)
        below = 0
        for bound, number in zip(bounds, counts, strict=False):
            below += number
            lines.append(f"{name}_bucket{_labels(labels | {'le': _number(bound)})} {below}")
        lines.append(f"{name}_bucket{_labels(labels | {'le': '+Inf'})} {count}")
        lines.append(f"{name}_sum{_labels(labels)} {_number(total)}")
        lines.append(f"{name}_count{_labels(labels)} {count}")

    def _family(self, name: str, kind: str, help: str) -> list[str]:
        head = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
        return self._families.setdefault(name, head)

    def text(self) -> str:
        """The whole page."""
        return "".join("\n".join(lines) + "\n" for lines in self._families.values())


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


async def page(core: Core, traffic: Traffic, points: Iterable[Point] = ()) -> str:
    """GET /gemel/metrics. points: metrics that services sent."""
    made = Page()
    _engine(made, core)
    ones = list(core.containers.values())
    usages = await asyncio.gather(*(_usage(core, one) for one in ones))
    counters = await asyncio.to_thread(netstat.counters)
    for one, usage in zip(ones, usages, strict=True):
        labels = _who(one)
        _state(made, one, labels)
        if usage is not None:
            _used(made, usage, labels)
            _network(made, core, one, counters, labels)
    sums = await traffic.sums()
    if sums is not None:
        _traffic(made, sums)
    otelmetrics.add(made, points)
    return made.text()


def _who(one: Container) -> Labels:
    known = peer(one)
    return {
        "name": one.name,
        "service": known.service,
        "project": known.project,
        "runtime": one.runtime.value,
    }


async def _usage(core: Core, one: Container) -> Usage | None:
    if not one.state.running:
        return None
    try:
        async with asyncio.timeout(_PATIENCE):
            return await core.runtime(one).usage(one.id)
    except (GemelError, TimeoutError):
        return None


def _engine(made: Page, core: Core) -> None:
    made.add("gemel_build_info", "gauge", "Version of the engine.", 1, {"version": __version__})
    made.add(
        "gemel_start_time_seconds", "gauge", "When the engine began, since the epoch.",
        core.started, {},
    )  # fmt: skip
    states = [one.state.status for one in core.containers.values()]
    for status in sorted({"running", "exited", *states}):
        help = "Instances by state."
        made.add("gemel_instances", "gauge", help, states.count(status), {"state": status})


def _state(made: Page, one: Container, labels: Labels) -> None:
    state = one.state
    begun = parse_stamp(state.started_at)
    samples: Iterable[tuple[str, str, str, float]] = (
        ("up", "gauge", "Whether it runs.", state.running),
        ("restarts_total", "counter", "Restarts by its policy.", state.restarts),
        ("exit_code", "gauge", "How it ended last.", state.exit_code),
        ("oom_killed", "gauge", "Whether it ended for want of memory.", state.oom),
    )
    for name, kind, help, value in samples:
        made.add(f"gemel_instance_{name}", kind, help, value, labels)
    if state.health:
        help = "Whether its health check passes."
        made.add("gemel_instance_healthy", "gauge", help, state.health == "healthy", labels)
    if state.running and begun:
        help = "How long it has been running."
        made.add("gemel_instance_uptime_seconds", "gauge", help, time.time() - begun, labels)


def _used(made: Page, usage: Usage, labels: Labels) -> None:
    samples: Iterable[tuple[str, str, str, float]] = (
        ("cpu_seconds_total", "counter", "CPU time.", usage.cpu_ns / 1e9),
        ("memory_bytes", "gauge", "Memory in use.", usage.memory),
        ("memory_true_bytes", "gauge", "Memory with what serves it.", usage.true_memory),
        ("memory_limit_bytes", "gauge", "Limit of memory, 0 without one.", usage.memory_limit),
        ("processes", "gauge", "Processes and threads.", usage.pids),
        ("disk_read_bytes_total", "counter", "Read from disks.", usage.read_bytes),
        ("disk_written_bytes_total", "counter", "Written to disks.", usage.write_bytes),
    )
    for name, kind, help, value in samples:
        made.add(f"gemel_instance_{name}", kind, help, value, labels)


_Counters = dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]


def _network(made: Page, core: Core, one: Container, counters: _Counters, labels: Labels) -> None:
    if not one.endpoints:
        return
    try:
        interfaces = spec.interfaces(core, one)
    except KeyError:  # a network that is being removed
        return
    for interface in interfaces:
        if interface.host not in counters:
            continue
        # seen from the bridge's side: what it received, the instance sent
        sent, got = counters[interface.host]
        more = labels | {"interface": interface.name}
        for name, values in (("receive", got), ("transmit", sent)):
            help = f"Bytes that its network interfaces {name}."
            base = f"gemel_instance_network_{name}"
            made.add(f"{base}_bytes_total", "counter", help, values[0], more)
            made.add(
                f"{base}_packets_total", "counter", help.replace("Bytes", "Packets"),
                values[1], more,
            )  # fmt: skip


def _traffic(made: Page, sums: Sums) -> None:
    for edge in sums.edges:
        labels = {
            "source": edge.source,
            "target": edge.target,
            "protocol": edge.protocol,
            "code": edge.code,
        }
        made.histogram(
            "gemel_call_duration_seconds", "Calls between instances, by edge.", edge, labels
        )
        for name, value in (("request", edge.sent), ("response", edge.received)):
            help = f"Bytes of {name} bodies, by edge."
            made.add(f"gemel_call_{name}_bytes_total", "counter", help, value, labels)
    samples: Iterable[tuple[str, str, float]] = (
        ("packets_total", "Packets that were read.", sums.packets),
        ("packets_dropped_total", "Packets that came too fast.", sums.dropped),
        ("gaps_total", "Stretches of connections that were missed.", sums.gaps),
        ("calls_total", "Calls that were recorded.", sums.recorded),
        ("connections_evicted_total", "Connections given up for want of room.", sums.evicted),
        ("parser_failures_total", "Connections that a parser failed on.", sums.failures),
        ("calls_unlisted_total", "Calls of too many edges to list.", sums.overflowed),
    )
    for name, help, count in samples:
        made.add(f"gemel_capture_{name}", "counter", help, count, {})
    made.add("gemel_capture_connections", "gauge", "Connections that are read.", sums.flows, {})
