"""Which handler answers which method and path."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from gemel.api.call import Handler, Version
from gemel.errors import InvalidInput

MIN_VERSION: Version = (1, 24)
MAX_VERSION: Version = (1, 47)
MAX_VERSION_TEXT = "1.47"
MIN_VERSION_TEXT = "1.24"

_PREFIX = re.compile(r"/v([0-9]{1,4})\.([0-9]{1,4})(?=/|$)")
_PARAMETER = re.compile(r"\{(\w+)(:\*)?\}")


class Route(NamedTuple):
    """One route: the pattern in Docker's own notation, and its handler."""

    method: str
    pattern: str
    handler: Handler
    regex: re.Pattern[str]


def split_version(path: str) -> tuple[Version, str]:
    """API version of a path and the path without it. Raises InvalidInput in Docker's words."""
    found = _PREFIX.match(path)
    if found is None:
        return MAX_VERSION, path
    version = (int(found[1]), int(found[2]))
    text = f"{version[0]}.{version[1]}"
    if version < MIN_VERSION:
        raise InvalidInput(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MIN_VERSION_TEXT}, please upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        raise InvalidInput(
            f"client version {text} is too new. Maximum supported API version is {MAX_VERSION_TEXT}"
        )
    return version, path[found.end() :] or "/"


class Router:
    """A table of routes, looked up by method and first part of the path."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, str], list[Route]] = defaultdict(list)

    @property
    def routes(self) -> list[Route]:
        """All routes, for the documents and the tests."""
        return [route for routes in self._table.values() for route in routes]

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """``/images/{name:*}/json``: {name} is one part of the path, {name:*} may hold slashes."""
        expression = ""
        at = 0
        for part in _PARAMETER.finditer(pattern):
            expression += re.escape(pattern[at : part.start()])
            expression += f"(?P<{part[1]}>{'.+' if part[2] else '[^/]+'})"
            at = part.end()
        expression += re.escape(pattern[at:])
        first = pattern.split("/")[1]
        regex = re.compile(expression, re.DOTALL)
        self._table[method, first].append(Route(method, pattern, handler, regex))

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler for an unescaped path without version, and the path's parameters."""
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        for route in self._table.get((method, first), ()):
            found = route.regex.fullmatch(path)
            if found is not None:
                return route.handler, found.groupdict()
        return None
