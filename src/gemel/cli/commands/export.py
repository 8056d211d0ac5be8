"""export: the files of a service's container as a tar archive."""

from __future__ import annotations

import os
import sys

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.targets import one
from gemel.errors import Failed, InvalidInput


@command()
@click.argument("name", type=TARGETS, metavar="SERVICE|CONTAINER")
@click.option("-o", "--output", "path", default="", metavar="FILE", help="Not standard output.")
@click.option("--index", type=int, default=0, help="Which replica (the first that runs).")
@pass_app
def export(app: App, name: str, path: str, index: int) -> None:
    """Write the files of a container or micro VM, as they are now, as a tar archive."""
    if not path and sys.stdout.isatty():
        raise InvalidInput(
            "an archive is not written to a terminal",
            resolution=f"gemel export {name} -o FILE, or redirect the output",
        )
    target = one(app, name, index)
    response = app.client.call("GET", f"/containers/{target.id}/export", timeout=600)
    if not path:
        for piece in response.chunks():
            sys.stdout.buffer.write(piece)
        return
    partial = f"{path}.part-{os.getpid()}"
    try:
        with open(partial, "xb") as file:
            for piece in response.chunks():
                file.write(piece)
        os.replace(partial, path)
    except OSError as error:
        raise Failed(f"cannot write {path}", details=str(error)) from error
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)
    output.note(f"{target.name} written to {path}")
