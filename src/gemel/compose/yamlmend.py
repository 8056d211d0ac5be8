"""The rest of a file in which something is not YAML, so that its other mistakes are told too."""

from __future__ import annotations

import re
from typing import NamedTuple

from gemel.compose.problems import Path

_NAME = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s:#'"][^:#]*?))\s*:""")


class Rest(NamedTuple):
    """text: the same lines, some of them empty now. path: what they said something of."""

    text: str
    path: Path


def without(text: str, line: int) -> Rest:
    """``text`` without the service (or what stands like one) to which a line belongs.

    line: counted from 0.
    """
    lines = text.split("\n")
    depth = [_depth(one) for one in lines]
    top = _above(depth, line, 0)
    first = next((n for n in range(top + 1, len(lines)) if depth[n] >= 0), len(lines))
    path: Path
    if top == line or first > line or depth[first] == 0:
        start, level, path = top, 0, (_name(lines[top]),)
    else:
        level = depth[first]
        start = _above(depth, line, level)
        path = (_name(lines[top]), _name(lines[start]))
    end = next((n for n in range(line + 1, len(lines)) if 0 <= depth[n] <= level), len(lines))
    return Rest("\n".join([*lines[:start], *[""] * (end - start), *lines[end:]]), path)


def _depth(line: str) -> int:
    """How far a line is indented; -1 for one that says nothing."""
    text = line.lstrip()
    if not text or text[0] == "#":
        return -1
    return len(line.expandtabs(8)) - len(line.expandtabs(8).lstrip())


def _above(depth: list[int], line: int, level: int) -> int:
    """The nearest line from ``line`` upwards that is indented by ``level`` at most."""
    return next((n for n in range(line, -1, -1) if 0 <= depth[n] <= level), 0)


def _name(line: str) -> str:
    match = _NAME.match(line)
    return (match[1] or match[2] or match[3] or "") if match else ""
