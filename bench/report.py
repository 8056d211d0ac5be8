"""What was measured, as a table for people, as Markdown and as JSON."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import peers
from bench.measure import Aim, Case

_HEAD = ("part", "what", "who", "median", "quartiles", "n", "gemel ÷ it", "aim")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    release = Path("/etc/debian_version")
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mb": memory,
        "kernel": platform.release(),
        "debian": release.read_text().strip() if release.exists() else "",
        "python": platform.python_version(),
        "kvm": Path("/dev/kvm").exists(),
        "load": [round(one, 2) for one in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """The programs that take part."""
    asked = {
        "dockerd": (peers.DOCKERD, "--version"),
        "docker": (peers.DOCKER, "--version"),
        "compose v2": (peers.COMPOSE2, "version"),
        "compose v1": (peers.COMPOSE1, "--version"),
        "podman": (peers.PODMAN, "--version"),
        "crun": (Path("/usr/bin/crun"), "--version"),
        "runc": (Path("/usr/sbin/runc"), "--version"),
        "qemu": (Path("/usr/bin/qemu-system-x86_64"), "--version"),
    }
    return {n: peers.version(*argv) for n, argv in asked.items() if argv[0].exists()}


def amount(value: float, unit: str) -> str:
    """A value with its unit, three digits or so."""
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def _aim(case: Case, aim: Aim) -> str:
    met = {True: "met", False: "MISSED", None: "cannot be told"}[case.verdict(aim)]
    what = f"≤ {aim.limit:g} × {aim.beside}" if aim.beside else f"≤ {amount(aim.limit, case.unit)}"
    return f"{what}: {met}"


def rows(cases: list[Case]) -> list[tuple[str, ...]]:
    """One row for each candidate of each case."""
    found: list[tuple[str, ...]] = []
    for case in cases:
        for place, who in enumerate(case.series):
            low, high = case.spread(who)
            ratio = case.ratio("gemel", who) if who != "gemel" else None
            found.append(
                (
                    case.part if place == 0 else "",
                    case.name if place == 0 else "",
                    who,
                    amount(case.median(who), case.unit),
                    f"{amount(low, case.unit)} – {amount(high, case.unit)}",
                    str(len(case.series[who])),
                    "" if ratio is None else f"{ratio:.2f}",
                    "; ".join(_aim(case, aim) for aim in case.aims if aim.of == who),
                )
            )
    return found


def table(cases: list[Case], markdown: bool) -> str:
    """The rows in columns."""
    lines = [_HEAD, *rows(cases)]
    if markdown:
        cells = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([cells[0], "|---" * len(_HEAD) + "|", *cells[1:]])
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def heading(about: dict[str, Any]) -> str:
    """The machine in one line."""
    return (
        f"{about['date']}, {about['cpus']} × {about['cpu']}, {about['memory_mb']} MB,"
        f" Debian {about['debian']}, Linux {about['kernel']}, Python {about['python']},"
        f" load {'/'.join(map(str, about['load']))} at the start"
    )


def document(
    about: dict[str, Any], programs: dict[str, str], cases: list[Case], missing: dict[str, str]
) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "machine": about,
        "versions": programs,
        "missing": missing,
        "cases": [
            {
                **asdict(case),
                "medians": {who: case.median(who) for who in case.series},
                "quartiles": {who: case.spread(who) for who in case.series},
                "ratios": {who: case.ratio("gemel", who) for who in case.series if who != "gemel"},
                "aims": [{**asdict(aim), "met": case.verdict(aim)} for aim in case.aims],
            }
            for case in cases
        ],
    }
