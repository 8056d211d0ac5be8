"""volume ls, inspect, create, rm, prune; volumes of the project."""

from __future__ import annotations

import click

from gemel.cli import output, text, values
from gemel.cli.app import App, command, pass_app
from gemel.cli.batch import print_each
from gemel.cli.commands.image import parse_filters, show
from gemel.cli.targets import PROJECT

COLUMNS = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")]
_format = click.option("--format", "form", default=None, help="table, json, or a template.")


@click.group()
def volume() -> None:
    """Manage volumes: data that outlives containers."""


def _list(app: App, filters: dict[str, list[str]], quiet: bool, form: str | None) -> None:
    found = app.client.get("/volumes", filters=filters or None).get("Volumes") or []
    found.sort(key=lambda entry: str(entry["Name"]))
    if quiet:
        for entry in found:
            output.say(entry["Name"])
        return
    output.emit(found, COLUMNS, form)


@volume.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those.")
@_format
@pass_app
def ls(app: App, quiet: bool, filters: tuple[str, ...], form: str | None) -> None:
    """List volumes."""
    _list(app, parse_filters(filters), quiet, form)


@command()
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@_format
@pass_app
def volumes(app: App, quiet: bool, form: str | None) -> None:
    """List the application's volumes."""
    _list(app, {"label": [f"{PROJECT}={app.name()}"]}, quiet, form)


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="VOLUME...")
@click.option("--format", "form", default=None, help="json, or a template.")
@pass_app
def inspect(app: App, names: tuple[str, ...], form: str | None) -> None:
    """Show everything about volumes as JSON."""
    show([app.client.get(f"/volumes/{name}") for name in names], form)


@volume.command()
@click.argument("name", required=False, default="", metavar="[VOLUME]")
@click.option("-d", "--driver", default="local", show_default=True, help="Its driver.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="A driver option.")
@pass_app
def create(
    app: App, name: str, driver: str, labels: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Create a volume."""
    body = {
        "Name": name,
        "Driver": driver,
        "Labels": values.labels(labels),
        "DriverOpts": values.labels(options),
    }
    output.say(app.client.post("/volumes/create", body)["Name"])


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="VOLUME...")
@click.option("-f", "--force", is_flag=True, help="Fine if it is not there.")
@pass_app
def rm(app: App, names: tuple[str, ...], force: bool) -> None:
    """Remove volumes with all that is in them."""
    print_each(names, lambda name: app.client.delete(f"/volumes/{name}", force=force))


@volume.command()
@click.option("-a", "--all", "every", is_flag=True, help="Named ones too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_app
def prune(app: App, every: bool, force: bool) -> None:
    """Remove volumes that nothing uses."""
    what = "all" if every else "all anonymous"
    if not force and not click.confirm(f"Remove {what} volumes that nothing uses?"):
        return
    filters = {"all": ["true"]} if every else None
    done = app.client.post("/volumes/prune", filters=filters, timeout=600)
    for name in done.get("VolumesDeleted") or []:
        output.say(name)
    output.say(f"Total reclaimed space: {text.decimal_size(done.get('SpaceReclaimed') or 0)}")
