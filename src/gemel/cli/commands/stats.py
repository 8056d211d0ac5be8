"""stats: what each container and micro VM uses."""

from __future__ import annotations

import time
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.targets import Target, from_summary, resolve, summaries
from gemel.client.project.pool import each

COLUMNS = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
]


@command()
@click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE|CONTAINER]...")
@click.option("-a", "--all", "every", is_flag=True, help="Stopped ones too.")
@click.option("--no-stream", is_flag=True, help="Once only.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def stats(
    app: App,
    names: tuple[str, ...],
    every: bool,
    no_stream: bool,
    no_trunc: bool,
    form: str | None,
) -> None:
    """Show CPU, memory and I/O as it is used, until Ctrl-C."""
    before: dict[str, dict[str, Any]] = {}
    first = True
    while True:
        if names or app.has_project():
            targets = resolve(app, names)
        else:
            targets = [from_summary(entry) for entry in summaries(app)]
        chosen = [target for target in targets if every or names or target.running]
        samples = _samples(app, chosen)
        if first and not before:
            # a share of the processor needs two samples
            before = samples
            time.sleep(0.5)
            samples = _samples(app, chosen)
        rows = [
            row_of(target, samples.get(target.id, {}), before.get(target.id, {}), no_trunc)
            for target in chosen
        ]
        if not no_stream and output.colourful(1) and not form:
            output.say(
                "\x1b[2J\x1b[H",
            )
        output.emit(rows, COLUMNS, form)
        if no_stream:
            return
        before, first = samples, False
        time.sleep(1)


def _samples(app: App, targets: list[Target]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def one(target: Target) -> None:
        if target.running:
            path = f"/containers/{target.id}/stats"
            found[target.id] = app.client.get(path, stream=False, **{"one-shot": True})

    each(targets, one, app.parallel)  # one that has just ended has no sample
    return found


def row_of(
    target: Target, now: dict[str, Any], before: dict[str, Any], whole: bool = False
) -> output.Row:
    """A row with docker's field names."""
    memory = now.get("memory_stats") or {}
    used = memory_used(memory)
    limit = memory.get("limit") or 0
    received, sent = _network(now)
    read, written = _blocks(now)
    return {
        "Container": target.id[:12],
        "ID": target.id if whole else target.id[:12],
        "Name": target.name,
        "CPUPerc": f"{cpu_percent(now, before):.2f}%",
        "MemUsage": f"{text.binary_size(used)} / {text.binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{text.decimal_size(received)} / {text.decimal_size(sent)}",
        "BlockIO": f"{text.decimal_size(read)} / {text.decimal_size(written)}",
        "PIDs": str((now.get("pids_stats") or {}).get("current") or 0),
        "Service": target.service,
    }


def memory_used(memory: dict[str, Any]) -> int:
    """Memory without the cache that the kernel takes back at once, as docker counts."""
    inside = memory.get("stats") or {}
    inactive = inside.get("total_inactive_file", inside.get("inactive_file", 0))
    usage = int(memory.get("usage") or 0)
    return usage - inactive if inactive < usage else usage


def cpu_percent(now: dict[str, Any], before: dict[str, Any]) -> float:
    """Percent of one processor between two samples, by the clock."""
    current = _cpu(now)
    earlier = _cpu(before or {"cpu_stats": now.get("precpu_stats"), "read": now.get("preread")})
    seconds = text.epoch(str(now.get("read") or "")) - text.epoch(
        str((before or {"read": now.get("preread")}).get("read") or "")
    )
    if seconds <= 0 or current < earlier:
        return 0.0
    return (current - earlier) / 1e9 / seconds * 100


def _cpu(sample: dict[str, Any]) -> int:
    return int(((sample.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage") or 0)


def _network(sample: dict[str, Any]) -> tuple[int, int]:
    networks = (sample.get("networks") or {}).values()
    return sum(n.get("rx_bytes", 0) for n in networks), sum(n.get("tx_bytes", 0) for n in networks)


def _blocks(sample: dict[str, Any]) -> tuple[int, int]:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read = sum(e["value"] for e in entries if e["op"].lower() == "read")
    written = sum(e["value"] for e in entries if e["op"].lower() == "write")
    return read, written
