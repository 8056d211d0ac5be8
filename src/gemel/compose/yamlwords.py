"""What is wrong with a text that is not YAML, in the words of one who writes Compose files.

The parser tells where it could not go on; what the person mistook often stands before that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import yaml

from gemel.compose.problems import Place, nearest

_OPENED = {
    "while parsing a flow sequence": "this [ is not closed",
    "while parsing a flow mapping": "this { is not closed",
    "while scanning a quoted scalar": "this quote is not closed",
}
_KEY = re.compile(r"""\s*(?:- +)*(?:[^\s'"#:][^:#]*|'[^']*'|"[^"]*"):(?=\s)""")
_NO_BLANK = re.compile(r"\s*(?:- +)*[\w.-]+:(?=\S)")


class Explained(NamedTuple):
    """Where to look, and words. local: nothing but that place is wrong, as far as can be seen."""

    place: Place
    words: str
    local: bool = False


def explained(error: yaml.YAMLError, text: str, file: str) -> Explained:
    """What a person is told of an error of the parser."""
    if isinstance(error, yaml.reader.ReaderError):
        return _unreadable(error, text, file)
    if not isinstance(error, yaml.MarkedYAMLError):
        return Explained(Place(file), f"not YAML: {' '.join(str(error).split())}")
    told = _Told(error, text.split("\n"), file)
    place, words = told.found()
    return Explained(place, f"not YAML: {words}", told.local)


def _unreadable(error: yaml.reader.ReaderError, text: str, file: str) -> Explained:
    number = error.character if isinstance(error.character, int) else ord(error.character[:1])
    words = f"not YAML: a character that must not be there (U+{number:04X})"
    at = text.find(chr(number))
    if at < 0:
        return Explained(Place(file), words)
    line = text.count("\n", 0, at)
    start = text.rfind("\n", 0, at) + 1
    place = Place(file, line + 1, at - start + 1, text.split("\n")[line].rstrip("\r"))
    return Explained(place, words)


class _Told:
    def __init__(self, error: yaml.MarkedYAMLError, lines: list[str], file: str) -> None:
        self.context, self.problem = error.context or "", error.problem or ""
        self.lines, self.file = lines, file
        mark = error.problem_mark or error.context_mark
        self.line, self.column = (mark.line, mark.column) if mark else (-1, 0)
        begun = error.context_mark or mark
        self.begun = (begun.line, begun.column) if begun else (-1, 0)
        self.local = True

    def found(self) -> tuple[Place, str]:
        for rule in (self._unclosed, self._tab, self._key, self._deeper, self._token, self._alias):
            if words := rule():
                return self._place(), words
        self.local = False
        return self._place(), ", ".join(part for part in (self.context, self.problem) if part)

    def _place(self) -> Place:
        if self.line < 0:
            return Place(self.file)
        return Place(self.file, self.line + 1, self.column + 1, self._text(self.line))

    def _text(self, line: int) -> str:
        return self.lines[line].rstrip("\r") if 0 <= line < len(self.lines) else ""

    def _unclosed(self) -> str:
        """What was opened and misses its end: that place says more than where it was missed."""
        missed = "did not find expected ',' or" in self.problem
        ended = "unexpected end of stream" in self.problem
        words = _OPENED.get(self.context, "") if missed or ended else ""
        if words:
            self.line, self.column = self.begun
            self.local = "quote" not in words  # it may have been an earlier one
        return words

    def _tab(self) -> str:
        text = self._text(self.line)
        at = text.find("\t", 0, len(text) - len(text.lstrip()))
        if at < 0 or not text.strip():
            return ""
        self.column = at
        return "a tab: YAML indents with blanks, not tabs"

    def _key(self) -> str:
        """A line that is no ``key: value``, or does not stand where it should."""
        if self.problem == "could not find expected ':'":
            self.line, self.column = self.begun
            return self._no_key(self._text(self.line)[self.column :])
        if self.problem == "did not find expected key":
            if words := self._misplaced():
                return words
            self.local = False
            return "the value ends before this; put a text with it in quotes"
        if self.problem == "did not find expected '-' indicator":
            return 'a list goes on here: each of its entries begins with "- ", indented alike'
        return ""

    def _no_key(self, rest: str) -> str:
        words = 'this is neither "key: value" nor the entry of a list ("- value")'
        if rest.startswith("-") and rest[1:2].strip():
            return 'a blank is missing after "-"'
        if _NO_BLANK.match(rest):
            return 'a blank is missing after ":"'
        return words

    def _misplaced(self) -> str:
        """Words on a line whose indentation is none of those open above it."""
        text = self._text(self.line)
        own = _indent(text)
        if own != self.column:
            return ""
        steps: list[int] = []
        for above in self.lines[: self.line]:
            if above.strip() and not above.lstrip().startswith("#"):
                steps = [step for step in steps if step < _indent(above)] + [_indent(above)]
        if own in steps or not steps:
            return "a key was expected here; is it indented as what it belongs to?"
        known = " or ".join(str(step) for step in steps)
        return f"this line is indented by {own}: it must be {known}, as the lines above are"

    def _deeper(self) -> str:
        """``: `` where there can be no key."""
        if "sequence entries are not allowed" in self.problem:
            return "a list begins on a line of its own, or is written as [a, b]"
        if "mapping values are not allowed" not in self.problem:
            return ""
        text = self._text(self.line)
        key = _KEY.match(text)
        if key is None or key.end() - 1 < self.column:
            return '": " within a text: put the whole text in quotes'
        at = self.line - 1
        while at >= 0 and not self._text(at).strip():
            at -= 1
        above = self._text(at)
        if gap := _NO_BLANK.match(above):
            self.line, self.column = at, gap.end() - 1
            return 'a blank is missing after ":"'
        if _indent(text) > _indent(above):
            self.column = _indent(text)
            return f"this line is indented deeper than line {at + 1}, which has its value already"
        return ""

    def _token(self) -> str:
        if "unknown escape character" in self.problem:
            return r'no escape within "…": write \\ for a backslash, or use single quotes'
        if "cannot start any token" not in self.problem:
            return ""
        char = self._text(self.line)[self.column : self.column + 1]
        return f"a text cannot begin with {char}: put it in quotes"

    def _alias(self) -> str:
        text = self._text(self.line)[self.column :]
        if "undefined alias" in self.problem:
            name = re.split(r"[\s,\]}]", text[1:], maxsplit=1)[0]
            above = "\n".join(self.lines[: self.line + 1])
            known = re.findall(r"(?<!\S)&([^\s,\[\]{}]+)", above)
            words = "" if known else f'; an anchor is written as "key: &{name or "name"} …", above'
            return f"no anchor &{name} stands above{nearest(name, known)}{words}"
        if "alphabetic or numeric" in self.problem:
            return "a text cannot begin with * or &: put it in quotes"
        return ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
