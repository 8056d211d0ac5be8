"""debug: a shell with tools in any service, and debuggers."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.targets import Target, one
from gemel.client import terminal
from gemel.client.debug import toolbox
from gemel.errors import InvalidInput, NotFound

GREETING = """\
The service's root is {root}, its processes are those of `ps`. Nothing that you do
outside of {root} is seen by the service. Tools: strace, gdb, gdbserver, curl, tcpdump,
ss, ip, lsof, vi, less, python3. `as-service CMD` runs a command in the service's
own root with its environment and user."""


@command(ignore_unknown_options=True, allow_interspersed_args=False)
@click.option("--prepare", is_flag=True, help="Make the toolbox now, so that later it is there.")
@click.option("--image", default="", help="Another image than gemel's own toolbox.")
@click.option("--from-crash", is_flag=True, help="The files of a service that has ended.")
@click.option("-T", "--no-tty", is_flag=True, help="No terminal, even if there is one.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@click.option("--detach-keys", default="ctrl-p,ctrl-q", help="Keys that let go of it.")
@click.argument("name", type=TARGETS, metavar="[SERVICE|CONTAINER]", default="")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
@pass_app
def debug(
    app: App,
    prepare: bool,
    image: str,
    from_crash: bool,
    no_tty: bool,
    index: int,
    detach_keys: str,
    name: str,
    argv: tuple[str, ...],
) -> int:
    """A shell with tools in any service, or a command of the toolbox (after `--`).

    The tools come from an image of their own: it makes no difference what the
    service's image has. Of the service nothing is changed, and nothing counts for its limits.
    """
    if not name and not prepare:
        raise InvalidInput("which service?", resolution="gemel debug SERVICE")
    told = _Progress()
    toolbox.prepare(app.client, image, told)
    told.end()
    if not name:
        return 0
    target = one(app, name, index)
    _check(target, name, from_crash)
    beside = toolbox.Beside(app.client, target.id, image, ended=from_crash)
    command = [word for n, word in enumerate(argv) if n or word != "--"]
    wants_tty = not no_tty and terminal.is_terminal(0) and terminal.is_terminal(1)
    if not command and wants_tty:
        output.note(GREETING.format(root="/service"))
    return beside.attached(command or ["/bin/bash"], tty=wants_tty, detach_keys=detach_keys)


def _check(target: Target, name: str, ended: bool) -> None:
    if not ended and not target.running:
        raise NotFound(
            f"{name} is not running",
            resolution=f"`gemel debug --from-crash {name}` looks at what it left, "
            f"`--pause-at-start` starts it held before its first instruction",
        )


class _Progress:
    """What the making of the toolbox says, on one line of a terminal, else every line."""

    def __init__(self) -> None:
        self.shown = False

    def __call__(self, line: str) -> None:
        if not line:
            return
        if terminal.is_terminal(2):
            click.echo(f"\r\x1b[K{line[:78]}", nl=False, err=True)
            self.shown = True
        elif line.startswith("making"):
            output.note(line)

    def end(self) -> None:
        """The line goes."""
        if self.shown:
            click.echo("\r\x1b[K", nl=False, err=True)
