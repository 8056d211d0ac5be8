"""kernel build, fetch, list, use."""

from __future__ import annotations

import sys
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, pass_app
from gemel.client.pull import checked

COLUMNS = [("NAME", "Name"), ("VERSION", "Version"), ("KIND", "Kind"), ("USED", "Used")]
#: Without a terminal every so many counts are told.
SELDOM = 20


@click.group()
def kernel() -> None:
    """Guest kernels of micro VMs.

    The distribution's is fetched from its packages, never installed; an own small one, which
    boots faster and takes less memory, is built of the distribution's source.
    """


class _Counts:
    """Progress lines: ``compiling: 12 of about 99`` is written over the last one of its kind."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._open = ""
        self._seen = 0

    def show(self, text: str) -> None:
        """A line as it comes."""
        kind, colon, _ = text.partition(": ")
        counts = bool(colon) and kind in ("unpacking", "compiling")
        if not counts:
            self.end()
            output.say(text)
        elif self._terminal:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
        elif kind != self._open or self._seen % SELDOM == 0:
            output.say(text)
        self._seen = self._seen + 1 if kind == self._open else 1
        self._open = kind if counts else ""

    def end(self) -> None:
        """Leaves what was written over."""
        if self._open and self._terminal:
            sys.stderr.write("\n")
        self._open = ""


def _stream(app: App, path: str, **query: Any) -> None:
    counts = _Counts()
    try:
        for message in checked(app.client.stream("POST", path, query=query)):
            counts.show(str(message.get("status", "")))
    finally:
        counts.end()


@kernel.command()
@pass_app
def fetch(app: App) -> None:
    """Fetch the distribution's guest kernel and try KVM, ahead of the first micro VM.

    Without it the first micro VM does the same.
    """
    _stream(app, "/gemel/kernels/fetch")


@kernel.command()
@click.option("-j", "--jobs", type=click.IntRange(1, 1024), help="Compilers at once (all CPUs).")
@click.option("--no-use", is_flag=True, help="Only build it; do not choose it.")
@pass_app
def build(app: App, jobs: int | None, no_use: bool) -> None:
    """Build an own small guest kernel of Debian's linux-source, and use it.

    It takes some minutes and 2 GB of disk meanwhile, and is kept: a second time it is there at
    once. Ctrl-C ends it and leaves nothing. Running micro VMs keep the kernel they have.
    """
    _stream(app, "/gemel/kernels/build", jobs=jobs, use=0 if no_use else 1)


@kernel.command("list")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def list_(app: App, form: str | None) -> None:
    """List the guest kernels that are here."""
    rows: list[dict[str, Any]] = app.client.get("/gemel/kernels")
    output.emit(rows, COLUMNS, form)


kernel.add_command(list_, "ls")


@kernel.command()
@click.argument("name")
@pass_app
def use(app: App, name: str) -> None:
    """Use the kernel NAME (or the beginning of its name) for micro VMs that start from now on.

    `default` is the distribution's. Running micro VMs keep the kernel they have; templates of
    clones are made anew.
    """
    told = app.client.post("/gemel/kernels/use", name=name)
    output.say(f"micro VMs that start from now on use {told['Name']} {told['Version']}")
