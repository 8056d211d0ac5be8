"""ps: the services of the application; without one, everything that runs."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.cli.targets import ONE_OFF, PROJECT, SERVICE, summaries
from gemel.errors import NotFound

COLUMNS = [
    ("NAME", "Name"),
    ("IMAGE", "Image"),
    ("RUNTIME", "RuntimeShown"),
    ("SERVICE", "Service"),
    ("STATUS", "Status"),
    ("ADDRESS", "Address"),
    ("PORTS", "Ports"),
]
#: What a narrow terminal does without, first things first: key, characters left.
SPARE = [
    ("Image", 20), ("Address", 0), ("Image", 0), ("Ports", 32), ("Service", 0), ("Ports", 22),
    ("Status", 16), ("Name", 24), ("Ports", 0),
]  # fmt: skip
_STATES = ["created", "restarting", "running", "removing", "paused", "exited", "dead"]


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("-a", "--all", "every", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--services", "names_only", is_flag=True, help="Names of services only.")
@click.option("--status", "states", multiple=True, type=click.Choice(_STATES), help="Only these.")
@click.option("--filter", "state_filter", default="", metavar="status=…", help="The same.")
@click.option("--orphans/--no-orphans", default=True, help="Services that are not in the file.")
@click.option("--no-trunc", is_flag=True, help="Whole commands.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def ps(
    app: App,
    services: tuple[str, ...],
    every: bool,
    quiet: bool,
    names_only: bool,
    states: tuple[str, ...],
    state_filter: str,
    orphans: bool,
    no_trunc: bool,
    form: str | None,
) -> None:
    """List the application's services: runtime, state, ports.

    Without a Compose file here (or -p NAME): all containers and micro VMs that run.
    """
    states = (*states, *([state_filter.partition("=")[2]] if state_filter else []))
    if not app.has_project():
        from gemel.cli.commands.container import show_all

        show_all(summaries(app, all=every or bool(states)), quiet=quiet, form=form)
        return
    found = [
        entry
        for entry in summaries(app, project=app.name(), all=every or bool(states))
        if every or str((entry.get("Labels") or {}).get(ONE_OFF, "")).lower() != "true"
    ]
    found = _chosen(app, found, services, states, orphans)
    rows = [row_of(entry, trunc=not no_trunc) for entry in found]
    rows.sort(key=lambda row: (row["Service"], row["Name"]))
    if quiet:
        for row in rows:
            output.say(row["ID"])
    elif names_only:
        for name in dict.fromkeys(row["Service"] for row in rows):
            output.say(name)
    else:
        _show(rows, form)


def _show(rows: list[output.Row], form: str | None) -> None:
    """A table fits the terminal; anything else, and what is piped, is whole."""
    if (form or "table") == "table" and sys.stdout.isatty():
        from gemel.cli import fit

        measures = [fit.Spare(key, width) for key, width in SPARE]
        shown, columns = fit.fitted(rows, COLUMNS, measures, fit.terminal_width())
        output.emit(shown, columns, form)
        return
    output.emit(rows, COLUMNS, form)


def _chosen(
    app: App,
    found: list[dict[str, Any]],
    services: tuple[str, ...],
    states: tuple[str, ...],
    orphans: bool,
) -> list[dict[str, Any]]:
    if services:
        present = {entry["Labels"].get(SERVICE) for entry in found}
        missing = [name for name in services if name not in present]
        if missing and missing[0] not in _defined(app):
            raise NotFound(f"no such service: {missing[0]}")
        found = [entry for entry in found if entry["Labels"].get(SERVICE) in services]
    if not orphans and app.compose_files():
        known = app.project().services
        found = [entry for entry in found if entry["Labels"].get(SERVICE) in known]
    if states:
        found = [entry for entry in found if entry.get("State") in states]
    return found


def _defined(app: App) -> list[str]:
    from gemel.cli.targets import defined_services

    return defined_services(app)


def row_of(entry: dict[str, Any], *, trunc: bool = True) -> output.Row:
    """A row with the field names of Compose v2's JSON, and Runtime."""
    from gemel.cli.commands.container import runtime_of

    labels = entry.get("Labels") or {}
    status = str(entry.get("Status", ""))
    command_line = str(entry.get("Command") or "")
    if trunc and len(command_line) > 20:
        command_line = command_line[:19] + "…"
    ports = entry.get("Ports") or []
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    return {
        "Address": addresses(networks),
        "Command": json.dumps(command_line, ensure_ascii=False),
        "CreatedAt": time.strftime(
            "%Y-%m-%d %H:%M:%S %z %Z", time.localtime(entry.get("Created", 0))
        ),
        "ExitCode": _exit_code(entry, status),
        "Health": _health(status),
        "ID": entry["Id"][:12] if trunc else entry["Id"],
        "Image": entry.get("Image", ""),
        "Labels": ",".join(f"{k}={v}" for k, v in labels.items()),
        "LocalVolumes": str(len([m for m in entry.get("Mounts") or [] if m.get("Name")])),
        "Mounts": ",".join(
            str(m.get("Name") or m.get("Source") or "") for m in entry.get("Mounts") or []
        ),
        "Name": (entry.get("Names") or ["/"])[0].lstrip("/"),
        "Names": ",".join(name.lstrip("/") for name in entry.get("Names") or []),
        "Networks": ",".join(networks),
        "Ports": text.ports(ports),
        "Project": labels.get(PROJECT, ""),
        "Publishers": [
            {
                "URL": port.get("IP", ""),
                "TargetPort": port.get("PrivatePort", 0),
                "PublishedPort": port.get("PublicPort", 0),
                "Protocol": port.get("Type", "tcp"),
            }
            for port in ports
        ],
        "RunningFor": text.ago(time.time() - entry.get("Created", 0)) + " ago",
        "Runtime": runtime_of(entry),
        "RuntimeShown": runtime_of(entry) + (" (auto)" if entry.get("RuntimeChosen") else ""),
        "Service": labels.get(SERVICE, ""),
        "Size": "0B",
        "State": entry.get("State", ""),
        "Status": status,
    }


def addresses(networks: dict[str, Any]) -> str:
    """The addresses in all networks that it is in now."""
    found = (end.get("IPAddress") or end.get("GlobalIPv6Address") for end in networks.values())
    return ", ".join(filter(None, found))


def _health(status: str) -> str:
    for word in ("unhealthy", "healthy"):
        if f"({word})" in status:
            return word
    return "starting" if "(health: starting)" in status else ""


def _exit_code(entry: dict[str, Any], status: str) -> int:
    """From ``Exited (1) 2 minutes ago``: the list of the API does not hold it otherwise."""
    if status.startswith("Exited (") and ")" in status:
        code = status[8 : status.index(")")]
        if code.lstrip("-").isdigit():
            return int(code)
    return 0
