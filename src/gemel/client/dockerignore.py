"""Patterns of .dockerignore, as Docker reads them (Go's filepath.Match, with ``**``). Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable


def parse(text: str) -> list[str]:
    """Patterns in order; ``!`` in front means that it is kept after all."""
    patterns: list[str] = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        line = line.strip()
        if not line:
            continue
        keep = line.startswith("!")
        body = line[1:].strip() if keep else line
        if not body:
            continue
        body = posixpath.normpath(body).lstrip("/")
        if body in (".", ""):
            continue
        patterns.append("!" + body if keep else body)
    return patterns


def translate(pattern: str) -> re.Pattern[str]:
    """One pattern as a regular expression for a whole relative path. Raises ValueError."""
    out = ""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out += "(?:.*/)?"
            at += 3
            continue
        if pattern.startswith("**", at):
            out += ".*"
            at += 2
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise ValueError(f"`{pattern}`: no ] after [")
            inner = pattern[at + 1 : end].replace("\\", "\\\\")
            negated = inner.startswith(("^", "!"))
            out += "[^/" + inner[1:] + "]" if negated else "[" + inner + "]"
            at = end
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            out += re.escape(pattern[at])
        else:
            out += re.escape(char)
        at += 1
    return re.compile(out, re.DOTALL)


class Ignore:
    """Decides which files of a build context are left out."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [(p.startswith("!"), translate(p.removeprefix("!"))) for p in patterns]
        self._has_exceptions = any(keep for keep, _ in self._rules)

    def excluded(self, path: str) -> bool:
        """Whether ``path`` (relative, with slashes) is left out; the last rule that fits decides.

        A rule fits a path when it fits the path or a folder above it.
        """
        parts = path.split("/")
        names = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        out = False
        for keep, rule in self._rules:
            if keep == out and any(rule.fullmatch(name) for name in names):
                out = not keep
        return out

    def prunes(self, folder: str) -> bool:
        """Whether nothing below an excluded folder can come back in."""
        return not self._has_exceptions and self.excluded(folder)
