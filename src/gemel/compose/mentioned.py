"""Which variables a Compose file mentions: ``config --variables``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gemel.compose import yamlread
from gemel.compose.files import Reader
from gemel.compose.interpolate import BadTemplate, parts
from gemel.compose.problems import Problems


class Mention(msgspec.Struct, frozen=True):
    """A variable: with ``:?`` it must be set; the words after ``:-`` and ``:+``."""

    name: str
    required: bool = False
    default: str = ""
    alternate: str = ""


def mentions(paths: Iterable[str], reader: Reader) -> list[Mention]:
    """Every variable of these files once, by name; the first mention that says more holds."""
    found: dict[str, Mention] = {}
    for path in paths:
        for document in yamlread.parse(reader.read(path), path, path, Problems()):
            for text in _texts(document.value):
                for one in _of(text):
                    if one.name not in found or found[one.name] == Mention(one.name):
                        found[one.name] = one
    return [found[name] for name in sorted(found)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _of(text: str) -> Iterator[Mention]:
    try:
        found = list(parts(text))
    except BadTemplate:
        return  # told of when the file itself is read
    for name, operator, word in found:
        yield Mention(
            name,
            required=operator.endswith("?"),
            default=word if operator.endswith("-") else "",
            alternate=word if operator.endswith("+") else "",
        )
        yield from _of(word)
