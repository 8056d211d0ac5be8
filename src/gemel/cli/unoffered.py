"""Options of Docker Compose that gemel does not offer: refused with a reason, not unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from gemel.errors import Unsupported


def unoffered(*names: str, why: str, flag: bool = True) -> Callable[[Any], Any]:
    """An option that raises Unsupported when it is given. why: what there is instead."""

    def refuse(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value:
            brief = f"{names[-1]} is not offered"
            raise Unsupported(brief, details="an option of Docker Compose", resolution=why)

    settings: dict[str, Any] = {"is_flag": True} if flag else {"metavar": "VALUE"}
    return click.option(
        *names, callback=refuse, expose_value=False, help=f"Not offered: {why}.", **settings
    )


def no_effect(*names: str, why: str) -> Callable[[Any], Any]:
    """A flag that changes nothing here."""
    return click.option(*names, is_flag=True, expose_value=False, help=f"No effect: {why}.")
