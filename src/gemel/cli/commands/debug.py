"""debug: a shell with tools in any service, and debuggers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.targets import Target, one
from gemel.client import terminal
from gemel.client.debug import attach as attaching
from gemel.client.debug import launch, toolbox
from gemel.client.debug.forward import Forward
from gemel.client.http import Json
from gemel.errors import Conflict, Failed, GemelError, InvalidInput, NotFound

GREETING = """\
The service's root is /service, its processes are those of `ps`. Nothing that you do
outside of /service is seen by the service. Tools: strace, gdb, gdbserver, curl, tcpdump,
ss, ip, lsof, vi, less, python3. `as-service CMD` runs a command in the service's
own root with its environment and user."""
ENDED = (
    "It does not run: /service holds the files as it left them. `as-service` alone runs it anew."
)
HALTED = "It is stopped before its first instruction: `kill -CONT 1` (or leaving) lets it go."


@command()
@click.option("--prepare", is_flag=True, help="Make the toolbox now, so that later it is there.")
@click.option("--image", default="", help="Another image than gemel's own toolbox.")
@click.option("--from-crash", is_flag=True, help="The files of a service that has ended.")
@click.option("--pause-at-start", is_flag=True, help="Start it, stopped at its first instruction.")
@click.option(
    "--attach", "kind", default="", metavar="KIND", help="python, node or gdb: a debugger."
)
@click.option(
    "--wait", is_flag=True, help="With --attach: start it anew, waiting for the debugger."
)
@click.option("--port", type=int, default=-1, help="With --attach: the port here; 0 for any.")
@click.option("--pid", type=int, default=0, help="With --attach: which process of the service.")
@click.option("--no-launch", is_flag=True, help="With --attach: write no .vscode/launch.json.")
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
    pause_at_start: bool,
    kind: str,
    wait: bool,
    port: int,
    pid: int,
    no_launch: bool,
    no_tty: bool,
    index: int,
    detach_keys: str,
    name: str,
    argv: tuple[str, ...],
) -> int:
    """A shell with tools in any service, a command of the toolbox (after `--`), or a debugger.

    The tools come from an image of their own: it makes no difference what the
    service's image has. Of the service nothing is changed, and nothing counts for its limits.
    """
    if not name and not prepare:
        raise InvalidInput("which service?", resolution="gemel debug SERVICE")
    if from_crash and (pause_at_start or kind):
        raise InvalidInput("--from-crash is about a service that does not run")
    target = one(app, name, index) if name else None  # first: the toolbox may take a minute
    _prepare(app, image)
    if target is None:
        return 0
    beside = toolbox.Beside(app.client, target.id, image, ended=from_crash)
    if kind:
        return _attach(app, target, beside, kind, wait, port, pid, not no_launch)
    wants_tty = not no_tty and terminal.is_terminal(0) and terminal.is_terminal(1)
    with _held(app, target) if pause_at_start else contextlib.nullcontext():
        if not pause_at_start:
            _check(target, name, from_crash)
        if not argv and wants_tty:
            output.note(GREETING)
            if from_crash or pause_at_start:
                output.note(ENDED if from_crash else HALTED)
        return beside.attached(argv or ["/bin/bash"], tty=wants_tty, detach_keys=detach_keys)


def _prepare(app: App, image: str) -> None:
    told = _Progress()
    try:
        toolbox.prepare(app.client, image, told)
    finally:
        told.end()


def _check(target: Target, name: str, ended: bool) -> None:
    if not ended and not target.running:
        raise NotFound(
            f"{name} is not running",
            resolution="--from-crash looks at what it left, "
            "--pause-at-start starts it held before its first instruction",
        )


def _start_anew(app: App, target: Target, body: Json) -> None:
    """Stops it if it runs, and starts it for a debugger."""
    with contextlib.suppress(GemelError):
        app.client.call("POST", f"/containers/{target.id}/stop", timeout=60).read()
    route = f"/gemel/containers/{target.id}/start-debug"
    app.client.call("POST", route, body=body, timeout=180).read()


@contextlib.contextmanager
def _held(app: App, target: Target) -> Iterator[None]:
    """Started and stopped before its first instruction; it goes on after the block."""
    _start_anew(app, target, {"Halted": True})
    try:
        yield
    finally:
        with contextlib.suppress(GemelError):
            route = f"/containers/{target.id}/kill"
            app.client.call("POST", route, query={"signal": "CONT"}, timeout=30).read()


def _attach(
    app: App,
    target: Target,
    beside: toolbox.Beside,
    kind: str,
    wait: bool,
    port: int,
    pid: int,
    write: bool,
) -> int:
    """Attaches, forwards the port, and stays until Ctrl-C or the service's end."""
    if kind not in attaching.KINDS:
        raise InvalidInput(f"there is no debugger {kind!r}", resolution="python, node or gdb")
    if wait:
        if pid:
            raise InvalidInput("--wait starts the service anew: --pid says nothing then")
        env = [attaching.NODE_WAITS] if kind == "node" else []
        _start_anew(app, target, {"Halted": kind != "node", "Env": env})
    elif not target.running:
        raise NotFound(
            f"{target.name} is not running", resolution="--wait starts it for the debugger"
        )
    try:
        with _interruptible(), attaching.attach(beside, kind, pid, wait) as attached:
            with _forward(beside, int(attached.told["port"]), kind, port) as forward:
                _tell(app, target, kind, forward.port, attached.told, write)
                attached.wait()
        output.note("the service's process has ended")
        return 0
    except KeyboardInterrupt:
        output.note("detached; the service goes on")
        return 0
    finally:
        if wait and kind == "gdb":
            with contextlib.suppress(GemelError):
                route = f"/containers/{target.id}/kill"
                app.client.call("POST", route, query={"signal": "CONT"}, timeout=30).read()


def _forward(beside: toolbox.Beside, target: int, kind: str, port: int) -> Forward:
    """On the port that editors expect, or another one if that is taken and none was asked for."""
    if port >= 0:
        return Forward(beside, target, port)
    try:
        return Forward(beside, target, attaching.PORTS[kind])
    except Conflict:
        return Forward(beside, target, 0)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP let go of the debugger as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(app: App, target: Target, kind: str, port: int, told: Json, write: bool) -> None:
    what = {
        "python": f"Python {told.get('python')} with debugpy {told.get('debugpy')}",
        "node": "Node's inspector",
        "gdb": "gdbserver",
    }[kind]
    if write:  # first: who waits for the line may open it then
        _write_launch(app, target, kind, port, told)
    output.say(f"127.0.0.1:{port} leads to {what} in {target.name} (process {told['pid']})")
    if told["others"]:
        others = ", ".join(map(str, told["others"][:10]))
        output.note(f"it has further processes of the kind: {others}; --pid takes one of them")
    output.note("Ctrl-C detaches; the service goes on")


def _write_launch(app: App, target: Target, kind: str, port: int, told: Json) -> None:
    service, root = None, os.getcwd()
    with contextlib.suppress(GemelError):
        if target.service and app.compose_files():
            service = app.project().services.get(target.service)
            root = os.path.dirname(os.path.abspath(app.project().files[0]))
    config = app.client.get(f"/containers/{target.id}/json")["Config"]
    folder = str(config.get("WorkingDir") or told.get("folder") or "/")
    pairs = launch.mapped(service, folder, root)
    entry = launch.entry(kind, target.service or target.name, port, pairs, told, root)
    try:
        path, done = launch.write(root, entry)
    except Failed as error:
        output.warn(str(error))
        return
    if done:
        output.note(f"{os.path.relpath(path)} has `{entry['name']}`: {launch.remotes(pairs)}")
    else:
        output.note(f"{os.path.relpath(path)} is left as it is; it could have:")
        output.dump(entry)


class _Progress:
    """What the making of the toolbox says, on one line of a terminal, else its first line."""

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
            self.shown = False
