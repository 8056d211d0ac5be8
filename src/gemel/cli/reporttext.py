"""A comparison's report as text: a table with the spread, what each isolates, the advice."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from gemel.cli import output
from gemel.cli.output import paint

Json = dict[str, Any]
CONTAINER, MICROVM = "container", "microvm"


#: Units of a kind, largest first: least value that is shown in it, factor, name.
Units = Sequence[tuple[float, float, str]]
SECONDS: Units = ((1.0, 1.0, " s"), (0.001, 1e3, " ms"), (0.0, 1e6, " µs"))
BYTES: Units = ((0.0, 1 / (1 << 20), " MiB"),)
RATE: Units = ((0.0, 1.0, "/s"),)


def _unit(value: float, units: Units) -> tuple[float, str]:
    return next((factor, name) for least, factor, name in units if value >= least)


def _number(value: float) -> str:
    """Three digits that count, and no more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def middle(values: Sequence[float], units: Units) -> str:
    """The median with its unit."""
    value = statistics.median(values)
    factor, name = _unit(value, units)
    return f"{_number(value * factor)}{name}"


def spread(values: Sequence[float], units: Units) -> str:
    """The median, and from least to most where there is more than one."""
    if not values:
        return "—"
    shown = middle(values, units)
    if len(values) < 2:
        return shown
    factor, _ = _unit(statistics.median(values), units)
    return f"{shown} ({_number(min(values) * factor)}–{_number(max(values) * factor)})"


def ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """How many times the container's figure the micro VM's is."""
    if not one or not other or not statistics.median(other):
        return ""
    return f"{statistics.median(one) / statistics.median(other):.2f}×"


def rows(report: Json) -> list[output.Row]:
    """The table: what, container, micro VM, ratio."""
    found = [_row("image", [report["ImageSize"]], [report["ImageSize"]], BYTES, once=True)]
    starts = {v["Name"]: v["Start"] for v in report["Variants"]}
    base = starts.get(CONTAINER, [])
    found.append(_row("first answer, cold", base, starts.get("microvm cold", []), SECONDS))
    for name, start in starts.items():
        if name not in (CONTAINER, "microvm cold"):
            words = f"first answer, {name.removeprefix('microvm ')}"
            found.append(_row(words, base, start, SECONDS))
    for connections in dict.fromkeys(one["Connections"] for one in report["Load"]):
        loads = {o["Runtime"]: o for o in report["Load"] if o["Connections"] == connections}
        for key, words, units in (
            ("RequestsPerSecond", "throughput", RATE),
            ("P50", "latency p50", SECONDS),
            ("P95", "latency p95", SECONDS),
            ("P99", "latency p99", SECONDS),
            ("CpuPerRequest", "CPU of a request", SECONDS),
        ):
            pair = [loads.get(runtime, {}).get(key, []) for runtime in (CONTAINER, MICROVM)]
            found.append(_row(f"{words}, {connections} at once", pair[0], pair[1], units))
    use = {one["Runtime"]: one for one in report["Use"]}
    for key, words in (
        ("MemoryRest", "memory at rest"),
        ("MemoryLoad", "memory under load"),
        ("Disk", "writable layer"),
    ):
        pair = [use.get(runtime, {}).get(key, []) for runtime in (CONTAINER, MICROVM)]
        found.append(_row(words, pair[0], pair[1], BYTES))
    return found


def _row(
    what: str, outside: Sequence[float], inside: Sequence[float], units: Units, once: bool = False
) -> output.Row:
    return {
        "What": what,
        "Container": spread(outside, units),
        "MicroVM": spread(inside, units),
        "Ratio": "" if once else ratio(inside, outside),
    }


COLUMNS = [
    ("", "What"),
    ("CONTAINER", "Container"),
    ("MICRO VM", "MicroVM"),
    ("VM/CONTAINER", "Ratio"),
]


def heading(report: Json) -> str:
    """What was compared, in a line."""
    return (
        f"{report['Name']} ({report['Image']}), {report['Rounds']} rounds of "
        f"{report['Seconds']:g} s, {report['Processors']} processors, {report['Accelerator']}"
    )


def isolation(report: Json) -> list[str]:
    """What a program sees from inside, a line for each runtime and matter."""
    shown = []
    for one in report["Isolation"]:
        name = "container" if one["Runtime"] == CONTAINER else "micro VM"
        if one["Failure"]:
            shown.append(f"{name}: not probed: {one['Failure']}")
            continue
        whose = "the host's" if one["SharesKernel"] else "its own"
        filtered = "filtered by seccomp" if one["Seccomp"] else "not filtered"
        shown += [
            f"{name}: kernel {one['Kernel']} ({whose}), system calls {filtered}",
            f"  capabilities: {', '.join(one['Capabilities']) or 'none'}",
            f"  {len(one['Reaches'])} of {one['Tried']} risky system calls reach that kernel: "
            f"{', '.join(one['Reaches']) or 'none'}",
            f"  sees of the host: {', '.join(one['HostFacts']) or 'nothing'}",
        ]
    return shown


def lines(report: Json) -> list[str]:
    """The whole."""
    shown = [paint(heading(report), "bold"), ""]
    shown += output.table(rows(report), COLUMNS).splitlines()
    failures = [v for v in report["Variants"] if v["Failure"]]
    for variant in failures:
        shown += ["", f"{variant['Name']}: {variant['Failure']}"]
    errors = {o["Runtime"]: 0 for o in report["Load"]}
    for one in report["Load"]:
        errors[one["Runtime"]] += one["Errors"]
    shown += ["", *(f"{count} failed requests: {r}" for r, count in errors.items() if count)]
    shown += [paint("seen from inside", "bold"), *isolation(report)]
    if advice := report["Advice"]:
        shown += ["", paint("recommended: ", "bold") + advice["Summary"]]
        shown += [f"  - {reason}" for reason in advice["Reasons"]]
    shown += [f"  note: {note}" for note in report["Notes"]]
    return shown
