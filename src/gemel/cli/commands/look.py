"""top, port, inspect, events."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from gemel.cli import output, values
from gemel.cli.app import App, command, pass_app
from gemel.cli.commands.image import parse_filters, show
from gemel.cli.complete import TARGETS
from gemel.cli.targets import PROJECT, SERVICE, one, resolve
from gemel.errors import NotFound


@command()
@click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE|CONTAINER]...")
@pass_app
def top(app: App, names: tuple[str, ...]) -> None:
    """Show the processes of services or containers."""
    for target in resolve(app, names):
        if not target.running:
            continue
        found = app.client.get(f"/containers/{target.id}/top")
        titles = found.get("Titles") or []
        rows: list[output.Row] = [
            {str(i): cell for i, cell in enumerate(row)} for row in found.get("Processes") or []
        ]
        output.say(target.name)
        output.say(output.table(rows, [(title, str(i)) for i, title in enumerate(titles)]))
        output.say()


@command()
@click.argument("name", type=TARGETS, metavar="SERVICE|CONTAINER")
@click.argument("port_number", required=False, default="", metavar="[PORT[/PROTO]]")
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp", help="Which.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@pass_app
def port(app: App, name: str, port_number: str, protocol: str, index: int) -> None:
    """Show where a port is published; without PORT all of them."""
    target = one(app, name, index)
    settings = app.client.get(f"/containers/{target.id}/json").get("NetworkSettings") or {}
    ports: dict[str, Any] = settings.get("Ports") or {}
    if not port_number:
        for inner, bindings in sorted(ports.items()):
            for binding in bindings or []:
                output.say(f"{inner} -> {_address(binding)}")
        return
    inner = port_number if "/" in port_number else f"{port_number}/{protocol}"
    bindings = ports.get(inner) or []
    if not bindings:
        raise NotFound(
            f"no port {inner} is published by {target.name}",
            resolution=f"gemel port {name} lists those that are",
        )
    for binding in bindings:
        output.say(_address(binding))


def _address(binding: dict[str, str]) -> str:
    ip = binding.get("HostIp") or "0.0.0.0"
    return f"[{ip}]:{binding['HostPort']}" if ":" in ip else f"{ip}:{binding['HostPort']}"


_KINDS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


@command()
@click.argument("names", nargs=-1, required=True, type=TARGETS, metavar="NAME...")
@click.option("--type", "kind", type=click.Choice(list(_KINDS)), default=None, help="Only this.")
@click.option("-f", "--format", "form", default=None, help="json, or a template.")
@pass_app
def inspect(app: App, names: tuple[str, ...], kind: str | None, form: str | None) -> None:
    """Show everything about services, containers, images, networks or volumes as JSON."""
    found: list[Any] = []
    for name in names:
        found += _find(app, name, [kind] if kind else list(_KINDS))
    show(found, form)


def _find(app: App, name: str, kinds: list[str]) -> list[Any]:
    for kind in kinds:
        entry = app.client.exists(_KINDS[kind].format(name))
        if entry is not None:
            return [entry]
        if kind == "container" and app.has_project():
            members = [t for t in resolve(app, []) if t.service == name]
            if members:
                return [app.client.get(f"/containers/{t.id}/json") for t in members]
    raise NotFound(f"no such object: {name}", details=f"looked among {', '.join(kinds)}s")


@command()
@click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as Compose.")
@click.option("--format", "form", default="", help="json (an object a line, as docker), template.")
@click.option("--since", default="", metavar="TIME", help="From then on (also 10m).")
@click.option("--until", default="", metavar="TIME", help="Up to then.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those.")
@click.option("--all", "every", is_flag=True, help="Of everything, not of the project alone.")
@pass_app
def events(
    app: App,
    names: tuple[str, ...],
    as_json: bool,
    form: str,
    since: str,
    until: str,
    filters: tuple[str, ...],
    every: bool,
) -> None:
    """Follow what happens to the application's containers."""
    wanted = parse_filters(filters)
    if not every and app.has_project():
        wanted.setdefault("label", []).append(f"{PROJECT}={app.name()}")
        wanted.setdefault("type", ["container"])
    query = {
        "since": values.moment(since) or None,
        "until": values.moment(until) or None,
        "filters": wanted or None,
    }
    for event in app.client.stream("GET", "/events", query=query):
        attributes = event.get("Actor", {}).get("Attributes") or {}
        if names and attributes.get(SERVICE) not in names and attributes.get("name") not in names:
            continue
        if form:
            output.say(_formatted(event, form))
        else:
            output.say(json.dumps(_as_compose(event)) if as_json else _line(event))


def _formatted(event: dict[str, Any], form: str) -> str:
    """An event as docker's ``--format`` prints it."""
    if form == "json":
        return json.dumps(event, ensure_ascii=False)
    from gemel.cli import template

    return template.render(template.unescape(form), event)


def _stamp(event: dict[str, Any]) -> str:
    nanos = int(event.get("timeNano") or event.get("time", 0) * 10**9)
    clock = time.localtime(nanos // 10**9)
    return time.strftime("%Y-%m-%d %H:%M:%S", clock) + f".{nanos % 10**9 // 1000:06d}"


def _as_compose(event: dict[str, Any]) -> dict[str, Any]:
    attributes = dict(event.get("Actor", {}).get("Attributes") or {})
    return {
        "time": _stamp(event).replace(" ", "T"),
        "type": event.get("Type"),
        "action": event.get("Action"),
        "id": event.get("Actor", {}).get("ID"),
        "service": attributes.get(SERVICE, ""),
        "attributes": {"name": attributes.get("name", ""), "image": attributes.get("image", "")},
    }


def _line(event: dict[str, Any]) -> str:
    attributes = event.get("Actor", {}).get("Attributes") or {}
    shown = {k: v for k, v in attributes.items() if not k.startswith("com.docker.compose.")}
    inside = ", ".join(f"{key}={value}" for key, value in sorted(shown.items()))
    id = event.get("Actor", {}).get("ID", "")
    return f"{_stamp(event)} {event.get('Type')} {event.get('Action')} {id[:12]} ({inside})"
