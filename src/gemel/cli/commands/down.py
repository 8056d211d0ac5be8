"""down: stop and remove the application."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.cli.targets import of_project
from gemel.client.project.down import Down


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("-v", "--volumes", is_flag=True, help="Remove volumes, and all data in them.")
@click.option("--rmi", type=click.Choice(["local", "all"]), default=None, help="Remove images too.")
@click.option("--remove-orphans", is_flag=True, help="Also services not in the file.")
@click.option(
    "-t", "--timeout", type=int, default=None, metavar="SECONDS", help="Time before it is killed."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, remove nothing.")
@pass_app
def down(
    app: App,
    services: tuple[str, ...],
    volumes: bool,
    rmi: str | None,
    remove_orphans: bool,
    timeout: int | None,
    dry_run: bool,
) -> None:
    """Stop and remove the application's containers, micro VMs and networks.

    Volumes stay unless -v is given. Works without the Compose file too (-p NAME).
    """
    name = app.name()
    chosen: set[str] | None = None
    if services:
        chosen = set(services)
        for service in services:
            if app.compose_files():
                app.project().service(service)
    elif app.compose_files() and not remove_orphans:
        project = app.project()
        known = {*project.services, *project.disabled}
        orphans = sorted({t.service for t in of_project(app, one_offs=True)} - known)
        if orphans:
            output.warn(
                f"found services that are not in the file: {', '.join(orphans)};"
                " --remove-orphans removes them too"
            )
            chosen = known
    work = Down(app.client, name, app.parallel, app.providers())
    if dry_run:
        for line in work.would(chosen, volumes=volumes, networks=not services):
            output.say(line)
        for image in _images(app, rmi):
            output.say(f"remove image: {image}")
        return
    count = work.run(
        app.progress,
        services=chosen,
        timeout=timeout,
        volumes=volumes,
        images=_images(app, rmi),
        networks=not services,
        colour=output.colourful(2),
    )
    if not services:
        from gemel.client.project import placed

        placed.remove(app.place, name)
    if not count:
        output.warn(f"nothing of {name} is there to remove")


def _images(app: App, rmi: str | None) -> list[str]:
    if not rmi or not app.compose_files():
        return []
    project = app.project()
    return [
        project.image_of(service)
        for service in project.services.values()
        if service.provider is None and (rmi == "all" or not service.image)
    ]
