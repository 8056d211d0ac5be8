"""container ls, prune: every instance of the engine, whichever project it is of."""

from __future__ import annotations

import time
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, pass_app
from gemel.cli.commands.image import parse_filters

COLUMNS = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("RUNTIME", "Runtime"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
]


@click.group()
def container() -> None:
    """Manage containers and micro VMs one by one, of every project and of none."""


def runtime_of(entry: dict[str, Any]) -> str:
    """``container`` or ``microvm`` of an entry of GET /containers/json."""
    name = str(entry.get("Runtime") or entry.get("HostConfig", {}).get("Runtime") or "container")
    return "container" if name in ("runc", "crun", "io.containerd.runc.v2") else name


def row_of(entry: dict[str, Any], now: float, *, trunc: bool = True) -> output.Row:
    """A row as ``docker ps`` has it, plus Runtime."""
    command = str(entry.get("Command") or "")
    if trunc and len(command) > 20:
        command = command[:19] + "…"
    return {
        "ID": entry["Id"][:12] if trunc else entry["Id"],
        "Image": entry.get("Image", ""),
        "Command": f'"{command}"',
        "CreatedAt": entry.get("Created", 0),
        "RunningFor": text.ago(now - entry.get("Created", 0)) + " ago",
        "Runtime": runtime_of(entry),
        "State": entry.get("State", ""),
        "Status": entry.get("Status", ""),
        "Ports": text.ports(entry.get("Ports") or []),
        "Names": ",".join(name.lstrip("/") for name in entry.get("Names") or []),
        "Labels": ",".join(f"{k}={v}" for k, v in (entry.get("Labels") or {}).items()),
        "Networks": ",".join((entry.get("NetworkSettings") or {}).get("Networks") or {}),
    }


@container.command("ls")
@click.option("-a", "--all", "every", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def ls(
    app: App, every: bool, quiet: bool, filters: tuple[str, ...], no_trunc: bool, form: str | None
) -> None:
    """List containers and micro VMs."""
    wanted = parse_filters(filters)
    found = app.client.get("/containers/json", all=every, filters=wanted or None)
    show_all(found, quiet=quiet, trunc=not no_trunc, form=form)


def show_all(
    found: list[dict[str, Any]], *, quiet: bool, trunc: bool = True, form: str | None = None
) -> None:
    """The table of ``docker ps``."""
    rows = [row_of(entry, time.time(), trunc=trunc) for entry in found]
    if quiet:
        for row in rows:
            output.say(row["ID"])
        return
    output.emit(rows, COLUMNS, form)


@container.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_app
def prune(app: App, force: bool) -> None:
    """Remove all stopped containers and micro VMs."""
    if not force and not click.confirm("Remove all stopped containers?"):
        return
    done = app.client.post("/containers/prune", timeout=600)
    for id in done.get("ContainersDeleted") or []:
        output.say(id)
    output.say(f"Total reclaimed space: {text.decimal_size(done.get('SpaceReclaimed') or 0)}")
