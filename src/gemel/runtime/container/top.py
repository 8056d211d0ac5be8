"""docker top: the host's ps, of one container's processes."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from gemel.errors import Failed, InvalidInput
from gemel.host import run


async def processes(pids: Collection[int], ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows. Raises InvalidInput for arguments that ps refuses or that show no PID."""
    try:
        arguments = shlex.split(ps_args or "-ef")
    except ValueError as error:
        raise InvalidInput("the arguments of ps cannot be read", details=str(error)) from error
    result = await run.run(["ps", *arguments], check=False, timeout=30)
    if result.status != 0 and not result.stdout:
        raise InvalidInput("ps refuses these arguments", details=result.error_text)
    return select(result.stdout.decode("utf-8", "replace"), pids)


def select(text: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """The rows of ps's output that belong to ``pids`` (pure). Raises InvalidInput, Failed."""
    lines = text.splitlines()
    if not lines:
        raise Failed("ps printed nothing")
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidInput(
            "Couldn't find PID field in ps output", resolution="ask for the column pid as well"
        )
    column = titles.index("PID")
    rows: list[Sequence[str]] = [line.split(None, len(titles) - 1) for line in lines[1:]]
    mine = [
        [*row, *[""] * (len(titles) - len(row))]
        for row in rows
        if len(row) > column and row[column].isdecimal() and int(row[column]) in pids
    ]
    return titles, mine
