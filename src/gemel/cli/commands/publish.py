"""publish: refused, with words."""

from __future__ import annotations

import click

from gemel.cli.app import command
from gemel.errors import Unsupported


@command(ignore_unknown_options=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="REPOSITORY[:TAG]")
def publish(words: tuple[str, ...]) -> None:
    """Not offered: a Compose file is not put into a registry."""
    raise Unsupported(
        "gemel does not publish Compose files to a registry",
        details="that is an artifact of Docker Compose, which gemel neither writes nor reads",
        resolution="gemel push brings the images to their registries; "
        "gemel config -o FILE writes the whole file, resolved, to pass on",
    )
