"""commit: an image of what an instance has changed."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.targets import resolve
from gemel.client.pull import split_reference
from gemel.errors import InvalidInput


@command()
@click.argument("name", type=TARGETS, metavar="SERVICE|CONTAINER")
@click.argument("image", default="", metavar="[REPOSITORY[:TAG]]")
@click.option("-a", "--author", default="", help="Who has made it.")
@click.option(
    "-c",
    "--change",
    "changes",
    multiple=True,
    metavar="INSTRUCTION",
    help="As a Dockerfile has it.",
)
@click.option("-m", "--message", default="", help="What it is.")
@click.option("-p", "--pause/--no-pause", default=True, help="Hold it meanwhile.")
@click.option("--index", type=int, default=1, help="Which replica.", show_default=True)
@pass_app
def commit(
    app: App,
    name: str,
    image: str,
    author: str,
    changes: tuple[str, ...],
    message: str,
    pause: bool,
    index: int,
) -> None:
    """Make an image of a container or micro VM as it is now."""
    targets = resolve(app, (name,))
    chosen = [one for one in targets if len(targets) == 1 or one.number == index]
    if not chosen:
        raise InvalidInput(f"{name} has no replica {index}")
    repository, tag = split_reference(image) if image else ("", "")
    made = app.client.post(
        "/commit",
        container=chosen[0].id,
        repo=repository or None,
        tag=tag or None,
        author=author or None,
        comment=message or None,
        changes=list(changes) or None,
        pause=pause,
        timeout=600,
    )
    output.say(made["Id"])
