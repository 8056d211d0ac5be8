"""why: what has happened to a service, in a few lines."""

from __future__ import annotations

import time
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.commands.traffic import call, took, who
from gemel.cli.complete import TARGETS
from gemel.cli.output import paint
from gemel.cli.targets import resolve


@command()
@click.argument("name", type=TARGETS, metavar="SERVICE|CONTAINER")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@click.option("--format", "form", default="", help="json.")
@pass_app
def why(app: App, name: str, index: int, form: str) -> None:
    """Say what has happened to a service: exit, signal, memory, health, last words."""
    targets = [t for t in resolve(app, [name]) if not index or t.number == index]
    found = [app.client.get(f"/gemel/containers/{target.id}/why") for target in targets]
    if form == "json":
        output.dump(found)
        return
    for n, entry in enumerate(found):
        if n:
            output.say()
        for line in lines(entry):
            output.say(line)


def lines(entry: dict[str, Any]) -> list[str]:
    """One instance explained."""
    title = paint(entry["Name"], "bold")
    shown = [f"{title} ({entry['Runtime']}) {entry['Headline']}"]
    shown += [f"  {_clean(reason)}" for reason in entry["Reasons"]]
    if entry.get("Memory"):
        shown.append(f"  memory: {entry['Memory']}")
    if entry.get("SinceGood"):
        shown += ["", paint("otherwise since it last worked:", "dim")]
        shown += [f"  {_clean(line)}" for line in entry["SinceGood"]]
    if entry["Log"]:
        shown += ["", paint("last lines of its log:", "dim")]
        shown += [f"  {_clean(line)}" for line in entry["Log"]]
    for key, words in (("Served", "what it was asked last:"), ("Made", "what it asked last:")):
        if entry[key]:
            shown += ["", paint(words, "dim")] + [f"  {_call(one)}" for one in entry[key]]
    if entry["Changed"]:
        shown += ["", paint("what happened:", "dim")]
        shown += [f"  {_clock(one['Time'])}  {_clean(one['What'])}" for one in entry["Changed"]]
    if entry.get("Report"):
        shown += ["", f"a report is kept: gemel report {entry['Name']} -o report.zip"]
    return shown


def _call(one: dict[str, Any]) -> str:
    status = one["status"] if one["status"] is not None else "no answer"
    edge = f"{who(one['source'])} → {who(one['target'])}"
    return f"#{one['id']}  {_clock(one['start'])}  {edge}  {status}  {took(one['duration'])}  " + (
        call(one)
    )


def _clock(seconds: float) -> str:
    form = "%H:%M:%S" if time.time() - seconds < 86400 else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, time.localtime(seconds))


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "·" for c in text)
