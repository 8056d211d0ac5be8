"""report: what is kept of services that failed."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.targets import resolve
from gemel.errors import Failed, GemelError, NotFound

COLUMNS = [
    ("REPORT", "Id"),
    ("WHEN", "When"),
    ("NAME", "Name"),
    ("RUNTIME", "Runtime"),
    ("KIND", "Kind"),
    ("WHAT", "Headline"),
]


@command()
@click.argument("name", type=TARGETS, metavar="list|SERVICE|CONTAINER|REPORT", default="list")
@click.option("-o", "--output", "target", default="", metavar="FILE", help="Pack it into a zip.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def report(app: App, name: str, target: str, form: str | None) -> None:
    """Show crash reports, or pack the newest one of a service (secrets are masked).

    A report is made when a service ends with an error, out of memory, or
    unhealthy: log, traffic if it is recorded, environment, memory over time, what has changed.
    """
    known: list[dict[str, Any]] = app.client.get("/gemel/reports")
    if name == "list" and not target:
        for entry in known:
            entry["When"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["Time"]))
        output.emit(known, COLUMNS, form)
        return
    id = _newest(app, known, name)
    if target:
        _pack(app, id, target)
    else:
        output.dump(app.client.get(f"/gemel/reports/{id}"))


def _newest(app: App, known: list[dict[str, Any]], name: str) -> str:
    """The report of that id, or the newest of a service or container, there or gone."""
    names = {name}
    with contextlib.suppress(GemelError):
        names |= {target.name for target in resolve(app, [name])}
    project = ""
    with contextlib.suppress(GemelError):
        project = app.name() if app.has_project() else ""
    for entry in known:
        of_service = entry["Service"] == name and entry["Project"] == project
        if entry["Id"] == name or entry["Name"] in names or of_service:
            return str(entry["Id"])
    raise NotFound(f"there is no report of {name}", resolution="`gemel report list` shows them")


def _pack(app: App, id: str, target: str) -> None:
    answer = app.client.call("GET", f"/gemel/reports/{id}/archive", timeout=120)
    try:
        with open(target, "xb") as file:
            for piece in answer.chunks():
                file.write(piece)
    except FileExistsError as error:
        raise Failed(f"{target} is there already", resolution="name another file") from error
    except OSError as error:
        raise Failed(
            f"{target} cannot be written", details=os.strerror(error.errno or 0)
        ) from error
    output.note(f"report {id} is in {target}")
