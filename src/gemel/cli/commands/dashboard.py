"""dashboard: the page that shows services, calls, logs; opened in a browser where there is one."""

from __future__ import annotations

import os
import shutil
import sys

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.host import detach


@command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1.")
@click.option("--no-open", is_flag=True, help="Only print the address.")
@click.option("--stop", is_flag=True, help="End the dashboard.")
@click.option("--format", "form", default="", help="json.")
@pass_app
def dashboard(app: App, port: int, no_open: bool, stop: bool, form: str) -> None:
    """Open the dashboard: services, map, calls, logs, terminals in the browser.

    It is served on 127.0.0.1 by a process of its own, which ends with the engine or by --stop.
    The address that is printed lets one browser in, once, within an hour; call it again for
    another one. From elsewhere: ssh -L 7433:127.0.0.1:7433 HOST
    """
    if stop:
        stopped = app.client.delete("/gemel/dashboard")["Stopped"]
        output.say("The dashboard has ended." if stopped else "The dashboard did not run.")
        return
    made = app.client.post("/gemel/dashboard", port=port)
    if form == "json":
        output.dump(made)
        return
    output.say(made["Url"])
    if not no_open and sys.stdout.isatty() and _open(made["Url"]):
        output.note("It is opened in your browser.")


def _open(url: str) -> bool:
    """Shows a page to whoever sits here: under sudo that is not root."""
    opener = shutil.which("xdg-open")
    if not opener or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    argv = [opener, url]
    user = os.environ.get("SUDO_USER", "")
    if os.geteuid() == 0 and user and user != "root":
        runuser = shutil.which("runuser", path="/usr/sbin:/sbin:/usr/bin")
        if not runuser:
            return False
        argv = [runuser, "-u", user, "--", *argv]
    detach.start(argv, os.devnull)
    return True
