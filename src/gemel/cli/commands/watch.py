"""watch: the inner loop of a developer."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.commands.up import style_of
from gemel.cli.complete import SERVICES


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("--no-up", is_flag=True, help="Do not start the services first.")
@click.option("--prune", is_flag=True, help="For Docker's sake; unused layers are not kept.")
@click.option("--quiet", is_flag=True, help="Say nothing of what is done.")
@pass_app
def watch(app: App, services: tuple[str, ...], no_up: bool, prune: bool, quiet: bool) -> None:
    """Carry saved files into running services, as develop.watch of the Compose file says.

    sync brings a file in, sync+restart and sync+exec do more, rebuild builds the image anew
    and replaces the service. Ctrl-C ends it; the services go on.
    """
    from gemel.client.project.up import Up
    from gemel.client.project.watching import Watching
    from gemel.compose.plan import UpOptions, targets

    project = app.startable().enabling(services)
    names = list(services) or list(project.services)
    tell = (lambda _: None) if quiet else output.note
    work = Watching(app.client, project, names, style_of(app), tell)
    if not no_up:
        options = UpOptions(services=services)
        app.lint(project, targets(project, options))
        start = Up(app.client, project, options, style_of(app))
        start.detached(start.prepare())
    work.run()
