"""ls: the applications that the engine knows."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.targets import PROJECT, summaries
from gemel.errors import InvalidInput

COLUMNS = [("NAME", "Name"), ("STATUS", "Status"), ("CONFIG FILES", "ConfigFiles")]


@command()
@click.option("-a", "--all", "every", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--filter", "filters", multiple=True, metavar="name=PATTERN", help="Only these.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def ls(app: App, every: bool, quiet: bool, filters: tuple[str, ...], form: str | None) -> None:
    """List applications (Compose projects) of every folder."""
    rows = _named(rows_of(summaries(app, all=every)), filters)
    if quiet:
        for row in rows:
            output.say(row["Name"])
        return
    if form == "json":
        import json

        output.say(json.dumps(rows))
        return
    output.emit(rows, COLUMNS, form)


def _named(rows: list[output.Row], filters: tuple[str, ...]) -> list[output.Row]:
    """Those whose name holds every pattern (a regular expression). Raises InvalidInput."""
    for text in filters:
        key, _, pattern = text.partition("=")
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise InvalidInput(f"`{pattern}` is no pattern", details=str(error)) from error
        if key != "name":
            raise InvalidInput(f"unknown filter {key}", resolution="--filter name=PATTERN")
        rows = [row for row in rows if found.search(str(row["Name"]))]
    return rows


def rows_of(found: list[dict[str, Any]]) -> list[output.Row]:
    """A row for each project, states counted as Compose does: ``running(3), exited(1)``."""
    states: dict[str, Counter[str]] = {}
    files: dict[str, str] = {}
    for entry in found:
        labels = entry.get("Labels") or {}
        name = labels.get(PROJECT)
        if not name:
            continue
        states.setdefault(name, Counter())[entry.get("State", "")] += 1
        files.setdefault(name, labels.get(f"{PROJECT}.config_files", ""))
    return [
        {
            "Name": name,
            "Status": ", ".join(f"{state}({count})" for state, count in sorted(counts.items())),
            "ConfigFiles": files[name],
        }
        for name, counts in sorted(states.items())
    ]
