"""logs: the output of services or containers."""

from __future__ import annotations

import click

from gemel.cli import values
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.output import colourful
from gemel.cli.targets import resolve
from gemel.client.project.logs import LogOptions, Printer, follow_all, names_of
from gemel.errors import InvalidInput


@command()
@click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE|CONTAINER]...")
@click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
@click.option("--since", default="", metavar="TIME", help="From then on (also 10m).")
@click.option("--until", default="", metavar="TIME", help="Up to then.")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last lines of each.")
@click.option("-t", "--timestamps", is_flag=True, help="The time before each line.")
@click.option("--no-color", is_flag=True, help="No colour.")
@click.option("--no-log-prefix", is_flag=True, help="No names before the lines.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@pass_app
def logs(
    app: App,
    names: tuple[str, ...],
    follow: bool,
    since: str,
    until: str,
    tail: str,
    timestamps: bool,
    no_color: bool,
    no_log_prefix: bool,
    index: int,
) -> None:
    """Show the output of services or containers."""
    if tail != "all" and not tail.lstrip("-").isdigit():
        raise InvalidInput(f"`{tail}` is no number of lines", resolution="--tail 100, or all")
    options = LogOptions(
        follow=follow,
        since=values.moment(since),
        until=values.moment(until),
        tail="all" if tail.startswith("-") else tail,
        timestamps=timestamps,
    )
    targets = [t for t in resolve(app, names) if not index or t.number == index]
    bare = no_log_prefix or not any(target.service for target in targets)
    printer = Printer(names_of(targets), prefix=not bare, colour=colourful(1) and not no_color)
    follow_all(app.client, targets, options, printer)
