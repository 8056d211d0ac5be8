"""What is wrong in a person's files: place, words, the line itself and a caret.

All problems of a file are collected and told at once, as a good compiler does.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gemel.errors import InvalidInput

Path = tuple[str | int, ...]
"""Keys and list positions from the top of a document down to a value."""

LONGEST = 100
"""Characters of a word that is compared with known ones."""
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
            return f"{file}: {self.words}" if file else self.words
        head = f"{file}:{line}:{column}: {self.words}"
        if not text.strip():
            return head
        if len(text) > WIDEST:
            start = max(0, column - WIDEST // 2)
            text, column = text[start : start + WIDEST], column - start
        indent = "".join(_blank(c) for c in text[: column - 1])
        shown = "".join(_visible(c) for c in text)
        return f"{head}\n    {shown}\n    {indent}^"


def _visible(char: str) -> str:
    return char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}"


def _blank(char: str) -> str:
    """What is as wide as a character on a terminal."""
    if char == "\t":
        return char
    wide = unicodedata.east_asian_width(char) in "WF"
    return "" if unicodedata.combining(char) else "  " if wide else " "


def dotted(path: Path) -> str:
    """A path as people write it: ``services.web.ports[0]``."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out


def closest(word: str, known: Iterable[str]) -> str:
    """The known word nearest to ``word``, or nothing."""
    found = difflib.get_close_matches(word[:LONGEST], [str(k) for k in known], n=1, cutoff=0.6)
    return found[0] if found else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` for the known word nearest to ``word``, or nothing."""
    found = closest(word, known)
    return f' (did you mean "{found}"?)' if found else ""


class WrongFiles(InvalidInput):
    """All that is wrong in a project's files.

    problems: the single ones. partial: what could be read of the project, or None;
    its damaged parts are left out. warnings: what would have been told beside it.
    """

    def __init__(self, problems: Problems) -> None:
        super().__init__(*problems.words())
        self.problems = problems
        self.partial: Any = None
        self.warnings: Sequence[str] = ()

    def again(self) -> WrongFiles:
        """The same of all that is among the problems now."""
        made = WrongFiles(self.problems)
        made.partial, made.warnings = self.partial, self.warnings
        return made


class Problems:
    """A collector. ``check`` raises WrongFiles once for all that was added."""

    LIMIT = 50
    """Problems that are shown."""
    KEPT = 1000
    """Problems that are kept; of more it is only known how many there are."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}
        self._more = 0
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._found) + self._more

    def reading(self, file: str) -> None:
        """Files are told of in the order in which they are read."""
        self._files.setdefault(file, len(self._files))

    def add(self, place: Place, words: str) -> None:
        """Takes note of a problem; the same one twice counts once."""
        self.reading(place.file)
        problem = Problem(place, words)
        if len(self._found) < self.KEPT:
            self._found[problem] = None
        elif problem not in self._found:
            self._more += 1

    def check(self) -> None:
        """Raises WrongFiles if there was any problem."""
        if self._found:
            raise self.error()

    def error(self) -> WrongFiles:
        """The one error that tells of all of them."""
        return WrongFiles(self)

    def words(self) -> tuple[str, str, str]:
        """Brief, details and resolution of the error."""
        found = sorted(self._found, key=lambda p: (self._files[p.place.file], *p.place[1:3]))
        files = list(dict.fromkeys(p.place.file for p in found))
        shown = [p.render() for p in found[: self.LIMIT]]
        count = len(self)
        if count > self.LIMIT:
            shown.append(f"… and {count - self.LIMIT} more")
        many = f"{count} errors" if count != 1 else "1 error"
        return (
            f"{many} in {', '.join(files)}",
            "\n".join(shown),
            "Correct the file; nothing was changed",
        )
