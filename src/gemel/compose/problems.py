"""What is wrong in a person's files: place, words, the line itself and a caret.

All problems of a file are collected and told at once, as a good compiler does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from gemel.errors import InvalidInput

Path = tuple[str | int, ...]
"""Keys and list positions from the top of a document down to a value."""

WIDEST = 160
"""Characters of a source line that are shown."""


class Place(NamedTuple):
    """A place in a file; line and column count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0
    text: str = ""
    """The source line."""


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    place: Place
    words: str

    def render(self) -> str:
        """``file:line:column: words`` and, where known, the line with a caret below."""
        file, line, column, text = self.place
        if not line:
            return f"{file}: {self.words}"
        head = f"{file}:{line}:{column}: {self.words}"
        if not text.strip():
            return head
        if len(text) > WIDEST:
            start = max(0, column - WIDEST // 2)
            text, column = text[start : start + WIDEST], column - start
        indent = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
        return f"{head}\n    {text}\n    {indent}^"


def dotted(path: Path) -> str:
    """A path as people write it: ``services.web.ports[0]``."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` for the known word nearest to ``word``, or nothing."""
    found = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f' (did you mean "{found[0]}"?)' if found else ""


class Problems:
    """A collector. ``check`` raises InvalidInput once for all that was added."""

    LIMIT = 50

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, words: str) -> None:
        problem = Problem(place, words)
        if problem not in self._found:
            self._found.append(problem)

    def check(self) -> None:
        """Raises InvalidInput if there was any problem."""
        if self._found:
            raise self.error()

    def error(self) -> InvalidInput:
        """The one error that tells of all of them."""
        found = sorted(self._found, key=lambda p: p.place[:3])
        files = list(dict.fromkeys(p.place.file for p in found))
        shown = [p.render() for p in found[: self.LIMIT]]
        if len(found) > self.LIMIT:
            shown.append(f"… and {len(found) - self.LIMIT} more")
        many = f"{len(found)} errors" if len(found) != 1 else "1 error"
        return InvalidInput(
            f"{many} in {', '.join(files)}",
            "\n".join(shown),
            "Correct the file; nothing was changed",
        )
