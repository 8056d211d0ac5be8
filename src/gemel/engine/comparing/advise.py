"""The recommendation that follows from measurements. Pure: the same figures, the same advice.

Limits are wide on purpose, so that repeated runs on a noisy machine agree.
"""

from __future__ import annotations

from gemel.model.comparison import Advice, Load, Report, Use, Variant, median
from gemel.model.instance import RuntimeName

CONTAINER, MICROVM = RuntimeName.CONTAINER, RuntimeName.MICROVM
#: A micro VM is worth recommending if it does at least this share of a container's work …
THROUGHPUT = 0.6
#: … its slow answers take at most this many times as long …
LATENCY = 2.5
#: … and a request costs the host at most this many times the CPU.
CPU = 2.5


def advise(report: Report) -> Advice:
    """Which runtime, in a sentence with its figures, and all reasons."""
    failed = _failed(report)
    if failed is not None:
        return failed
    inside, outside = _loads(report)
    against: list[str] = []
    words: list[str] = []
    if inside and outside:
        against, words = _under_load(inside, outside)
    words += _started(report) + _memory(report) + _isolated(report)
    if against:
        summary = f"a container: as a micro VM {', '.join(against)}"
        words.append(
            "If it runs code or data that you do not trust, a kernel of its own may be worth "
            "that: x-gemel: {isolation: strong}"
        )
        return Advice(runtime=CONTAINER, summary=summary, reasons=words)
    share = _ratio(inside, outside) if inside and outside else 1.0
    summary = f"a micro VM: it does {share:.0%} of a container's work with a kernel of its own"
    return Advice(runtime=MICROVM, summary=summary, reasons=words)


def _failed(report: Report) -> Advice | None:
    """Where one of the two did not run at all."""
    for runtime, other in ((MICROVM, CONTAINER), (CONTAINER, MICROVM)):
        tried = [v for v in report.variants if v.runtime is runtime]
        if tried and not any(v.start for v in tried):
            why = next((v.failure for v in tried if v.failure), "it gave no healthy answer")
            noun = "a container" if other is CONTAINER else "a micro VM"
            return Advice(
                runtime=other,
                summary=f"{noun}: as a {runtime.value} it did not come up",
                reasons=[f"As a {runtime.value}: {why}"],
            )
    return None


def _loads(report: Report) -> tuple[Load | None, Load | None]:
    """The highest load of both: micro VM, container."""
    most: dict[RuntimeName, Load] = {}
    for load in report.load:
        if load.requests_per_second:
            before = most.get(load.runtime)
            if before is None or load.connections > before.connections:
                most[load.runtime] = load
    return most.get(MICROVM), most.get(CONTAINER)


def _ratio(one: Load, other: Load) -> float:
    base = median(other.requests_per_second)
    return median(one.requests_per_second) / base if base else 1.0


def _under_load(inside: Load, outside: Load) -> tuple[list[str], list[str]]:
    """What speaks against the micro VM, and the figures in words."""
    against = []
    share = _ratio(inside, outside)
    at = f"at {inside.connections} connections"
    words = [
        f"Throughput {at}: {median(inside.requests_per_second):,.0f} requests/s as a micro VM, "
        f"{median(outside.requests_per_second):,.0f} as a container ({share:.0%})"
    ]
    if share < THROUGHPUT:
        against.append(f"it does {share:.0%} of the work")
    slow, base = median(inside.p99), median(outside.p99)
    if base:
        words.append(
            f"Slowest answers (p99) {at}: {slow * 1e3:.1f} ms and {base * 1e3:.1f} ms "
            f"({slow / base:.1f}×)"
        )
        if slow / base > LATENCY and slow > 0.005:
            against.append(f"its p99 is {slow / base:.1f} times as long")
    cost, usual = median(inside.cpu_per_request), median(outside.cpu_per_request)
    if usual:
        words.append(
            f"CPU of a request: {cost * 1e6:,.0f} µs and {usual * 1e6:,.0f} µs "
            f"({cost / usual:.1f}×)"
        )
        if cost / usual > CPU:
            against.append(f"a request costs {cost / usual:.1f} times the CPU")
    return against, words


def _started(report: Report) -> list[str]:
    def of(runtime: RuntimeName) -> Variant | None:
        tried = [v for v in report.variants if v.runtime is runtime and v.start]
        return min(tried, key=lambda v: median(v.start), default=None)

    inside, outside = of(MICROVM), of(CONTAINER)
    if inside is None or outside is None:
        return []
    return [
        f"First healthy answer: {median(inside.start):.2f} s ({inside.name}), "
        f"{median(outside.start):.2f} s (container)"
    ]


def _memory(report: Report) -> list[str]:
    use: dict[RuntimeName, Use] = {one.runtime: one for one in report.use if one.memory_load}
    if len(use) < 2:
        return []
    sizes = [median(use[runtime].memory_load) / (1 << 20) for runtime in (MICROVM, CONTAINER)]
    return [f"Memory under load: {sizes[0]:.0f} MiB as a micro VM, {sizes[1]:.0f} as a container"]


def _isolated(report: Report) -> list[str]:
    found = {one.runtime: one for one in report.isolation if not one.failure}
    words = []
    if outside := found.get(CONTAINER):
        words.append(
            f"Isolation of the container: {len(outside.reaches)} of {outside.tried} risky system "
            f"calls reach the host's kernel; it sees of the host {', '.join(outside.host_facts)}"
        )
    if inside := found.get(MICROVM):
        what = ", ".join(inside.host_facts) or "nothing"
        words.append(
            f"Isolation of the micro VM: a kernel of its own ({inside.kernel}); it sees of the "
            f"host {what}"
        )
    return words
