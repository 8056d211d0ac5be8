"""rm and rename."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.batch import for_each
from gemel.cli.commands.lifecycle import stop_all
from gemel.cli.complete import TARGETS
from gemel.cli.targets import Target, resolve
from gemel.errors import Conflict


@command()
@click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE|CONTAINER]...")
@click.option("-f", "--force", is_flag=True, help="Do not ask; a container named: even running.")
@click.option("-s", "--stop", "stop_first", is_flag=True, help="Stop them first.")
@click.option("-v", "--volumes", is_flag=True, help="Their anonymous volumes too.")
@pass_app
def rm(app: App, names: tuple[str, ...], force: bool, stop_first: bool, volumes: bool) -> None:
    """Remove stopped containers of services, or containers by name."""
    targets = resolve(app, names, one_offs=True)
    if stop_first:
        stop_all(app, targets, None)
        targets = [target._replace(state="exited") for target in targets]
    outside = [target for target in targets if target.name in names or target.id in names]
    members = [target for target in targets if target not in outside and not target.running]
    busy = [target.name for target in outside if target.running and not force]
    if busy:
        raise Conflict(
            f"{', '.join(busy)} is running", resolution="stop it first, or add -f to kill it"
        )
    chosen = outside + members
    if not chosen:
        output.note("No stopped containers")
        return
    if members and not force:
        listed = ", ".join(target.name for target in members)
        if not click.confirm(f"Going to remove {listed}. Are you sure?", err=True):
            return

    def work(target: Target) -> None:
        query = {"force": force, "v": volumes}
        app.client.call("DELETE", f"/containers/{target.id}", query=query, timeout=120).read()

    for_each(app, chosen, work, "Removing", "Removed")


@command()
@click.argument("old", type=TARGETS, metavar="CONTAINER")
@click.argument("new", metavar="NAME")
@pass_app
def rename(app: App, old: str, new: str) -> None:
    """Give a container or micro VM another name."""
    app.client.post(f"/containers/{old}/rename", name=new)
