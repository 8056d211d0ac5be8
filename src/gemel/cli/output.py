"""What goes to the terminal: tables, JSON, templates, errors, colour."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gemel.errors import GemelError

Row = dict[str, Any]
Column = tuple[str, str]
"""Title, and the key of a row."""

_CODES = {
    "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36",
    "bold": "1", "dim": "2",
}  # fmt: skip
_ansi = "auto"


def set_ansi(mode: str) -> None:
    """auto, never or always; ``NO_COLOR`` counts as never in auto."""
    global _ansi
    _ansi = mode


def colourful(fd: int = 1) -> bool:
    """Whether text to this descriptor may carry colour."""
    if _ansi != "auto":
        return _ansi == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.isatty(fd)
    except OSError:
        return False


def paint(text: str, style: str, fd: int = 1) -> str:
    """The text in a style of _CODES (``bold red``), if the descriptor takes colour."""
    if not colourful(fd):
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """A line on standard output."""
    print(text)


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)


def warn(text: str) -> None:
    """A warning on standard error."""
    note(paint("warning:", "yellow", 2) + " " + text)


def error(problem: GemelError) -> None:
    """An error in its three parts."""
    note(paint("error:", "bold red", 2) + " " + problem.brief)
    for line in problem.details.splitlines():
        note("  " + line)
    if problem.resolution:
        note(paint("help:", "cyan", 2) + " " + problem.resolution)


def table(rows: Sequence[Row], columns: Sequence[Column], *, header: bool = True) -> str:
    """Columns as wide as their widest cell, three blanks between."""
    lines = [[title for title, _ in columns]] if header else []
    lines += [[_cell(row.get(key)) for _, key in columns] for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def emit(
    rows: Sequence[Row],
    columns: Sequence[Column],
    form: str | None,
    *,
    full: Callable[[Row], Any] | None = None,
) -> None:
    """Prints rows as ``--format`` asks: table (default), json, ``table TEMPLATE``, or a template.

    full: what ``json`` prints of a row, if it is not the row itself.
    """
    form = form or "table"
    if form == "json":
        for row in rows:
            say(json.dumps(full(row) if full else row, ensure_ascii=False))
    elif form == "table":
        say(table(rows, columns))
    else:
        _templated(rows, columns, form)


def _templated(rows: Sequence[Row], columns: Sequence[Column], form: str) -> None:
    from gemel.cli import template

    form = template.unescape(form)
    if not form.startswith("table "):
        for row in rows:
            say(template.render(form, row))
        return
    form = form.removeprefix("table ")
    titles = {key: title for title, key in columns}
    lines = [template.render(form, {key: titles.get(key, key.upper()) for key in _keys(rows)})]
    lines += [template.render(form, row) for row in rows]
    cells = [dict(enumerate(line.split("\t"))) for line in lines]
    count = max((len(line) for line in cells), default=0)
    keyed = [{str(key): value for key, value in line.items()} for line in cells]
    say(table(keyed, [("", str(i)) for i in range(count)], header=False))


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(rows[0]) if rows else []


def dump(value: Any) -> None:
    """Indented JSON, as ``inspect`` prints it."""
    say(json.dumps(value, indent=4, ensure_ascii=False))
