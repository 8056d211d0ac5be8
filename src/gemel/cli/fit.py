"""Tables that fit a terminal: what can be spared is shortened, then left out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import NamedTuple

from gemel.cli.output import Column, Row, table

#: The least that a terminal is taken to have.
NARROWEST = 40


class Spare(NamedTuple):
    """A measure: the column of that key gets at most so many characters; 0 leaves it out."""

    key: str
    width: int


def width_of(lines: str) -> int:
    """Characters of the longest line."""
    return max((len(line) for line in lines.splitlines()), default=0)


def fitted(
    rows: Sequence[Row], columns: Sequence[Column], measures: Sequence[Spare], width: int
) -> tuple[list[Row], list[Column]]:
    """Rows and columns after as many of the measures, in order, as it takes to fit ``width``."""
    shown, left = [dict(row) for row in rows], list(columns)
    for key, most in measures:
        if width_of(table(shown, left)) <= width:
            break
        if most == 0:
            left = [column for column in left if column[1] != key]
        else:
            for row in shown:
                row[key] = shortened(str(row.get(key) or ""), most)
    return shown, left


def shortened(text: str, most: int) -> str:
    """At most so many characters, the end left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def terminal_width() -> int:
    """Characters of a line of the terminal."""
    return max(NARROWEST, shutil.get_terminal_size().columns)
