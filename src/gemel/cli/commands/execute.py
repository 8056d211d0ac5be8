"""exec and attach."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.shellhint import shell_hint
from gemel.cli.targets import running
from gemel.cli.values import environment
from gemel.client import session, terminal
from gemel.client.http import Json


@command("exec", ignore_unknown_options=True, allow_interspersed_args=False)
@click.option("-T", "--no-tty", is_flag=True, help="No terminal, even if there is one.")
@click.option("-t", "--tty", is_flag=True, help="A terminal (the default if there is one).")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on (the default).")
@click.option("-d", "--detach", is_flag=True, help="Let it run in the background.")
@click.option("-e", "--env", "env", multiple=True, metavar="KEY=VALUE", help="Set a variable.")
@click.option("-u", "--user", default="", help="As this user.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="In this folder.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@click.option("--privileged", is_flag=True, help="With all capabilities.")
@click.option("--detach-keys", default="ctrl-p,ctrl-q", help="Keys that let go of it.")
@click.argument("name", type=TARGETS, metavar="SERVICE|CONTAINER")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@pass_app
def execute(
    app: App,
    no_tty: bool,
    tty: bool,
    interactive: bool,
    detach: bool,
    env: tuple[str, ...],
    user: str,
    workdir: str,
    index: int,
    privileged: bool,
    detach_keys: str,
    name: str,
    argv: tuple[str, ...],
) -> int:
    """Run a command in a running service or container.

    It gets a terminal if this command has one. The status is the command's own;
    126 if it cannot be run, 127 if it is not in the image.
    """
    target = running(app, name, index)
    wants_tty = not no_tty and (tty or (terminal.is_terminal(0) and terminal.is_terminal(1)))
    config: Json = {
        "AttachStdin": not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": wants_tty,
        "Cmd": list(argv),
        "Env": environment(env, []),
        "User": user,
        "WorkingDir": workdir,
        "Privileged": privileged,
    }
    if detach:
        session.exec_detached(app.client, target.id, config)
        return 0
    wanted = session.Wanted(stdin=True, tty=wants_tty, detach_keys=detach_keys)
    status = session.exec_in(app.client, target.id, config, wanted) or 0
    if hint := shell_hint(app.client, target, argv, status):
        output.note(output.paint("help:", "cyan", 2) + " " + hint)
    return status


@command()
@click.argument("name", type=TARGETS, metavar="SERVICE|CONTAINER")
@click.option("--no-stdin", is_flag=True, help="Do not pass standard input on.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Hand signals on.")
@click.option("--detach-keys", default="ctrl-p,ctrl-q", help="Keys that let go of it.")
@pass_app
def attach(
    app: App, name: str, no_stdin: bool, index: int, sig_proxy: bool, detach_keys: str
) -> int:
    """Connect to the first process of a service or container, input and output."""
    target = running(app, name, index)
    config = app.client.get(f"/containers/{target.id}/json")["Config"]
    stdin = bool(config.get("OpenStdin")) and not no_stdin
    wanted = session.Wanted(
        stdin=stdin, tty=bool(config.get("Tty")), detach_keys=detach_keys, sig_proxy=sig_proxy
    )
    base = f"/containers/{target.id}"
    stream = app.client.hijack(f"{base}/attach", stream=1, stdin=stdin, stdout=1, stderr=1)
    waiter = session.Waiter(app.client, target.id, "not-running")
    try:
        ended = session.connect(
            app.client, stream, wanted, resize=f"{base}/resize", kill=f"{base}/kill"
        )
        if not ended:
            output.note("detached; it runs on")
            return 0
        return waiter.result()
    finally:
        waiter.close()
