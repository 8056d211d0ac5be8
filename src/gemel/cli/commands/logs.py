"""logs: the output of services or containers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from gemel.cli import values
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.output import colourful
from gemel.cli.targets import resolve
from gemel.client.project import loglevel
from gemel.client.project.logs import LogOptions, Printer, label_of, names_of
from gemel.client.project.members import Target
from gemel.client.project.merged import Entry, merged
from gemel.errors import InvalidInput


@command()
@click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE|CONTAINER]...")
@click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
@click.option("--since", default="", metavar="TIME", help="From then on (also 10m).")
@click.option("--until", default="", metavar="TIME", help="Up to then.")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last lines of each.")
@click.option("-t", "--timestamps", is_flag=True, help="The time before each line.")
@click.option("--no-color", is_flag=True, help="No colour.")
@click.option("--no-log-prefix", is_flag=True, help="No names before the lines.")
@click.option("--grep", default="", metavar="PATTERN", help="Only lines with this (a regex).")
@click.option("-i", "--ignore-case", is_flag=True, help="Upper or lower case in --grep.")
@click.option("--level", default="", metavar="LEVEL", help="At least: debug, info, warn, error.")
@click.option(
    "--json-field",
    "members",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only lines (JSON, logfmt) with this; also a.b=c, or KEY alone.",
)
@click.option("--format", "form", default="", help="json: an object a line.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@pass_app
def logs(
    app: App,
    names: tuple[str, ...],
    follow: bool,
    since: str,
    until: str,
    tail: str,
    timestamps: bool,
    no_color: bool,
    no_log_prefix: bool,
    grep: str,
    ignore_case: bool,
    level: str,
    members: tuple[str, ...],
    form: str,
    index: int,
) -> None:
    """Show the output of services or containers, in the order of time."""
    if form not in ("", "json"):
        raise InvalidInput(f"`{form}` is no format", resolution="--format json")
    if tail != "all" and not tail.lstrip("-").isdigit():
        raise InvalidInput(f"`{tail}` is no number of lines", resolution="--tail 100, or all")
    options = LogOptions(
        follow=follow,
        since=values.moment(since),
        until=values.moment(until),
        tail="all" if tail.startswith("-") else tail,
        timestamps=timestamps,
    )
    targets = [t for t in resolve(app, names) if not index or t.number == index]
    if not targets:
        return
    wanted = loglevel.parse(grep, ignore_case, level, members)
    found = _wanted(merged(app.client, targets, options), targets, wanted)
    if form == "json":
        for entry in found:
            print(json.dumps(_object(entry, targets[entry.place]), ensure_ascii=False), flush=True)
        return
    bare = no_log_prefix or not any(target.service for target in targets)
    printer = Printer(names_of(targets), prefix=not bare, colour=colourful(1) and not no_color)
    labels = [label_of(target) for target in targets]
    for entry in found:
        words = f"{entry.at} {entry.text}" if timestamps else entry.text
        printer.line(labels[entry.place], words, error=entry.error)


def _wanted(
    entries: Iterator[Entry], targets: Sequence[Target], wanted: loglevel.Filter
) -> Iterator[Entry]:
    if wanted.any:
        return entries
    sieves = [loglevel.Sieve(wanted) for _ in targets]
    return (entry for entry in entries if sieves[entry.place].wants(entry.text))


def _object(entry: Entry, target: Target) -> dict[str, Any]:
    """A line as ``--format json`` prints it."""
    found = loglevel.fields(entry.text)
    level = loglevel.level_of(entry.text, found)
    return {
        "Time": entry.at,
        "Service": target.service,
        "Container": target.name,
        "Stream": "stderr" if entry.error else "stdout",
        "Level": loglevel.LEVELS[level] if level is not None else "",
        "Message": entry.text,
        **({"Fields": found} if found is not None else {}),
    }
