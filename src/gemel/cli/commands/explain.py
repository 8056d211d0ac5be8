"""explain: which runtime a service has, or would have, and why."""

from __future__ import annotations

from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.cli.output import paint
from gemel.errors import NotFound

_NOUN = {"microvm": "a micro VM", "container": "a container"}


@command()
@click.argument("name", type=SERVICES, metavar="SERVICE|CONTAINER")
@click.option("--format", "form", default="", help="json.")
@pass_app
def explain(app: App, name: str, form: str) -> None:
    """Say which runtime a service has (or would have with `runtime: auto`), and why.

    Every rule is shown with its fact; the first that speaks for a runtime decides.
    """
    entries = _running(app, name) or [_planned(app, name)]
    if form == "json":
        output.dump(entries)
        return
    for n, entry in enumerate(entries):
        if n:
            output.say()
        for line in lines(entry):
            output.say(line)


def _running(app: App, name: str) -> list[dict[str, Any]]:
    from gemel.cli.targets import resolve

    try:
        targets = resolve(app, [name])
    except NotFound:
        return []
    return [app.client.get(f"/gemel/containers/{target.id}/choice") for target in targets]


def _planned(app: App, name: str) -> dict[str, Any]:
    from gemel.client.project.choosing import choice

    project = app.project().enabling([name])
    asked = project.service(name).config.get("runtime") or "container"
    found = choice(app.client, project, name)
    return {
        "Name": name,
        "Asked": asked,
        "Runtime": found["Runtime"] if asked == "auto" else asked,
        "Chosen": None,
        "Now": found,
        "Problem": "",
        "Planned": True,
    }


def lines(entry: dict[str, Any]) -> list[str]:
    """One instance, or a service that has none yet."""
    noun = _NOUN.get(entry["Runtime"], entry["Runtime"])
    verb = "would be" if entry.get("Planned") else "is"
    shown = [f"{paint(entry['Name'], 'bold')} {verb} {noun}: {_who(entry)}"]
    if entry["Chosen"]:
        shown += ["", paint("the rules when it was made:", "dim"), *_rules(entry["Chosen"])]
        if entry["Now"] and entry["Now"]["Runtime"] != entry["Chosen"]["Runtime"]:
            now = entry["Now"]
            shown += [
                "",
                f"Made anew it would be {_NOUN[now['Runtime']]}: {now['Reason']}",
                "(gemel up --force-recreate)",
            ]
    elif entry["Now"]:
        words = "the rules:" if entry["Asked"] == "auto" else "`runtime: auto` would follow:"
        shown += ["", paint(words, "dim"), *_rules(entry["Now"])]
    if entry["Problem"]:
        shown += ["", f"`runtime: auto` would be refused now: {entry['Problem']}"]
    return shown


def _who(entry: dict[str, Any]) -> str:
    if entry["Asked"] != "auto":
        return f"the file or the command line says so ({entry['Asked']})"
    return str((entry["Chosen"] or entry["Now"])["Reason"])


def _rules(choice: dict[str, Any]) -> list[str]:
    wide = max((len(fact["Rule"]) for fact in choice["Facts"]), default=0)
    shown = []
    for fact in choice["Facts"]:
        mark = "→" if fact["Decisive"] else " "
        speaks = f"  [{fact['SpeaksFor']}]" if fact["SpeaksFor"] else ""
        line = f"  {mark} {fact['Rule'].ljust(wide)}  {fact['Fact']}{speaks}"
        shown.append(paint(line, "bold") if fact["Decisive"] else line)
    return shown
