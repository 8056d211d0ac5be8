"""network ls, inspect, create, rm, connect, disconnect, prune."""

from __future__ import annotations

from typing import Any

import click

from gemel.cli import output, values
from gemel.cli.app import App, pass_app
from gemel.cli.batch import print_each
from gemel.cli.commands.image import parse_filters, show

COLUMNS = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")]


@click.group()
def network() -> None:
    """Manage networks: containers and micro VMs share them."""


@network.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def ls(app: App, quiet: bool, filters: tuple[str, ...], no_trunc: bool, form: str | None) -> None:
    """List networks."""
    found = app.client.get("/networks", filters=parse_filters(filters) or None)
    rows: list[output.Row] = [
        {
            "ID": entry["Id"] if no_trunc else entry["Id"][:12],
            "Name": entry["Name"],
            "Driver": entry.get("Driver", ""),
            "Scope": entry.get("Scope", "local"),
            "Labels": entry.get("Labels") or {},
        }
        for entry in sorted(found, key=lambda entry: str(entry["Name"]))
    ]
    if quiet:
        for row in rows:
            output.say(row["ID"])
        return
    output.emit(rows, COLUMNS, form)


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--format", "form", default=None, help="json, or a template.")
@pass_app
def inspect(app: App, names: tuple[str, ...], form: str | None) -> None:
    """Show everything about networks as JSON."""
    show([app.client.get(f"/networks/{name}") for name in names], form)


@network.command()
@click.argument("name", metavar="NETWORK")
@click.option("-d", "--driver", default="bridge", show_default=True, help="Its driver.")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Its addresses.")
@click.option("--gateway", default="", metavar="ADDRESS", help="This machine's address in it.")
@click.option("--ip-range", default="", metavar="CIDR", help="Addresses to give out.")
@click.option("--internal", is_flag=True, help="No way out of it.")
@click.option("--attachable", is_flag=True, help="For Docker's sake; always so.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="A driver option.")
@pass_app
def create(
    app: App,
    name: str,
    driver: str,
    subnets: tuple[str, ...],
    gateway: str,
    ip_range: str,
    internal: bool,
    attachable: bool,
    labels: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    """Create a network."""
    body: dict[str, Any] = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": driver,
        "Internal": internal,
        "Attachable": attachable,
        "Labels": values.labels(labels),
        "Options": values.labels(options),
    }
    if subnets:
        first = {"Subnet": subnets[0], "Gateway": gateway, "IPRange": ip_range}
        pools = [{k: v for k, v in first.items() if v}, *({"Subnet": s} for s in subnets[1:])]
        body["IPAM"] = {"Config": pools}
    made = app.client.post("/networks/create", body)
    if made.get("Warning"):
        output.warn(made["Warning"])
    output.say(made["Id"])


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@pass_app
def rm(app: App, names: tuple[str, ...]) -> None:
    """Remove networks that nothing uses."""
    print_each(names, lambda name: app.client.delete(f"/networks/{name}"))


@network.command()
@click.argument("name", metavar="NETWORK")
@click.argument("container")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="A further name in it.")
@click.option("--ip", default="", metavar="ADDRESS", help="Its address in it.")
@pass_app
def connect(app: App, name: str, container: str, aliases: tuple[str, ...], ip: str) -> None:
    """Connect a container or micro VM to a network."""
    settings: dict[str, Any] = {"Aliases": list(aliases)}
    if ip:
        settings["IPAMConfig"] = {"IPv4Address": ip}
    body = {"Container": container, "EndpointConfig": settings}
    app.client.post(f"/networks/{name}/connect", body)


@network.command()
@click.argument("name", metavar="NETWORK")
@click.argument("container")
@click.option("-f", "--force", is_flag=True, help="Even if it is not there any more.")
@pass_app
def disconnect(app: App, name: str, container: str, force: bool) -> None:
    """Disconnect a container or micro VM from a network."""
    app.client.post(f"/networks/{name}/disconnect", {"Container": container, "Force": force})


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_app
def prune(app: App, force: bool) -> None:
    """Remove all networks that nothing uses."""
    if not force and not click.confirm("Remove all networks that nothing uses?"):
        return
    for name in app.client.post("/networks/prune").get("NetworksDeleted") or []:
        output.say(name)
