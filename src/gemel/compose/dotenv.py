"""The format of ``.env`` and ``env_file``: names, quotes, escapes, comments, ``export``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gemel.compose.files import NotText, Reader
from gemel.compose.interpolate import BadTemplate, Variables, substitute
from gemel.compose.problems import Place, Problems
from gemel.errors import InvalidInput, NotFound

_EXPORT = re.compile(r"export[ \t]+")
_KEY = re.compile(r"[^\S\n]*([^=:\n]*)([=:\n]|\Z)")
_ESCAPE = re.compile(r'\\([abcfnrtv$"\\]|0[0-7]{0,3})')
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
    "c": "\\c",
}


class _Parser:
    def __init__(self, text: str, file: str, lookup: Mapping[str, str], problems: Problems) -> None:
        self.text = text.replace("\r\n", "\n")
        self.file = file
        self.lookup = lookup
        self.problems = problems
        self.at = 0
        self.found: dict[str, str] = {}
        self.missing: dict[str, None] = {}

    def tell(self, at: int, words: str) -> None:
        line = self.text.count("\n", 0, at)
        start = self.text.rfind("\n", 0, at) + 1
        end = self.text.find("\n", start)
        source = self.text[start : end if end >= 0 else None]
        self.problems.add(Place(self.file, line + 1, at - start + 1, source), words)

    def parse(self) -> dict[str, str]:
        while self._skip():
            self._statement()
        return self.found

    def _skip(self) -> bool:
        """Passes blanks and comments. Whether something is left."""
        text = self.text
        while self.at < len(text):
            if text[self.at].isspace():
                self.at += 1
            elif text[self.at] == "#":
                self.at = self._line_end()
            else:
                return True
        return False

    def _line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return end if end >= 0 else len(self.text)

    def _statement(self) -> None:
        export = _EXPORT.match(self.text, self.at)
        start = self.at = export.end() if export else self.at
        match = _KEY.match(self.text, self.at)
        if match is None:  # cannot be: the pattern takes anything
            self.at = len(self.text)
            return
        key = match[1].rstrip()
        bad = next((c for c in key if not (c.isalnum() or c in "_.-[]")), None)
        if bad is not None or not key:
            words = "a blank" if bad is not None and bad.isspace() else f"'{bad}'"
            self.tell(start, f"{words} in a variable's name" if key else "a name is missing")
            self.at = self._line_end()
            return
        self.at = match.end()
        if match[2] in ("\n", ""):
            if key in self.lookup:
                self.found[key] = self.lookup[key]
            return
        value = self._value()
        if value is not None:
            self.found[key] = value

    def _value(self) -> str | None:
        text = self.text
        while self.at < len(text) and text[self.at] in " \t\v\f\r\x85\xa0":
            self.at += 1
        start = self.at
        if start < len(text) and text[start] in "'\"":
            return self._quoted(text[start])
        end = self._line_end()
        self.at = min(end + 1, len(text))
        value = text[start:end].split(" #", 1)[0].rstrip()
        return self._expand(value, start)

    def _quoted(self, quote: str) -> str | None:
        start, out, escaped = self.at, [], False
        for index in range(start + 1, len(self.text)):
            char = self.text[index]
            if escaped:
                out.append(char if char == quote else "\\" + char)
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                self.at = index + 1
                value = "".join(out)
                return value if quote == "'" else self._expand(_unescape(value), start)
            else:
                out.append(char)
        self.tell(start, "this quote is not closed")
        self.at = self._line_end()
        return None

    def _expand(self, value: str, at: int) -> str | None:
        try:
            return substitute(value, Variables({**self.found, **self.lookup}, self.missing))
        except BadTemplate as error:
            self.tell(at, str(error))
            return None


def _unescape(value: str) -> str:
    def one(match: re.Match[str]) -> str:
        body = match[1]
        if body[0] == "0":
            # as Go's octal escapes: exactly three digits, or left as it is
            return chr(int(body[1:], 8)) if len(body) == 4 else match[0]
        return _ESCAPES[body]

    return _ESCAPE.sub(one, value)


def parse(
    text: str,
    file: str,
    lookup: Mapping[str, str],
    problems: Problems,
    missing: dict[str, None] | None = None,
) -> dict[str, str]:
    """The variables of an env file.

    lookup: what references are looked up in first, and what a bare name takes its
    value from. What is wrong goes to ``problems``.
    """
    parser = _Parser(text, file, lookup, problems)
    if missing is not None:
        parser.missing = missing
    return parser.parse()


def parse_raw(text: str) -> dict[str, str | None]:
    """``format: raw``: a value is all behind the first ``=``, as it stands."""
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            key, equals, value = line.partition("=")
            found[key.strip()] = value if equals else None
    return found


def read_all(
    paths: Mapping[str, str],
    environment: Mapping[str, str],
    reader: Reader,
    problems: Problems,
    missing: dict[str, None] | None = None,
) -> dict[str, str]:
    """The variables of several files, later ones over earlier ones.

    paths: where they are, and what they are called in messages.
    """
    found: dict[str, str] = {}
    for path, shown in paths.items():
        try:
            text = reader.read(path)
        except NotFound:
            problems.add(Place(shown), "there is no such env file")
        except InvalidInput as error:
            place = error.place if isinstance(error, NotText) else Place(shown)
            problems.add(place._replace(file=shown), error.brief)
        else:
            found.update(parse(text, shown, {**found, **environment}, problems, missing))
    return found
