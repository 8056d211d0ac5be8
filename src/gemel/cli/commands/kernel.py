"""kernel fetch, ls."""

from __future__ import annotations

from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, pass_app
from gemel.client.pull import Lines, checked

COLUMNS = [("NAME", "Name"), ("VERSION", "Version"), ("USED", "Used")]


@click.group()
def kernel() -> None:
    """Guest kernels of micro VMs: fetched from Debian's packages, never installed."""


@kernel.command()
@pass_app
def fetch(app: App) -> None:
    """Fetch the guest kernel and try KVM, ahead of the first micro VM.

    Without it the first micro VM does the same.
    """
    lines = Lines(output.say)
    for message in checked(app.client.stream("POST", "/gemel/kernels/fetch")):
        lines.show(message)


@kernel.command("ls")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def ls(app: App, form: str | None) -> None:
    """List the guest kernels that are here."""
    rows: list[dict[str, Any]] = app.client.get("/gemel/kernels")
    output.emit(rows, COLUMNS, form)
