"""Tables keyed by path: ``services.*.ports`` stands for that place in every service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from gemel.compose.problems import Path

T = TypeVar("T")


class Table(Generic[T]):
    """A tree of patterns; only places that some pattern leads to are ever visited."""

    __slots__ = ("children", "entry", "star")

    def __init__(self, entries: Mapping[str, T] | None = None) -> None:
        self.entry: T | None = None
        self.star: Table[T] | None = None
        self.children: dict[str, Table[T]] = {}
        for pattern, entry in (entries or {}).items():
            self._grow(pattern.split(".")).entry = entry

    def _grow(self, parts: list[str]) -> Table[T]:
        node: Table[T] = self
        for part in parts:
            if part == "*":
                node.star = node.star or Table()
                node = node.star
            else:
                node = node.children.setdefault(part, Table())
        return node

    def below(self, part: str | int) -> Table[T] | None:
        """What the patterns say of ``part`` of a value here."""
        if isinstance(part, str):
            return self.children.get(part, self.star)
        return self.star

    def at(self, path: Path) -> Table[T] | None:
        """What the patterns say of ``path``."""
        node: Table[T] | None = self
        for part in path:
            if node is None:
                return None
            node = node.below(part)
        return node


Rewriter = Callable[[Any, Path], Any]


def rewrite(value: Any, table: Table[Rewriter] | None, path: Path = ()) -> Any:
    """Applies a table of functions to ``value`` in place, from the top down."""
    if table is None:
        return value
    if table.entry is not None:
        value = table.entry(value, path)
    if not table.children and table.star is None:
        return value
    if isinstance(value, dict):
        for key, item in value.items():
            below = table.below(key)
            if below is not None:
                value[key] = rewrite(item, below, (*path, key))
    elif isinstance(value, list) and table.star is not None:
        for index, item in enumerate(value):
            value[index] = rewrite(item, table.star, (*path, index))
    return value


def copied(value: Any) -> Any:
    """A deep copy of a plain value (aliases are no longer shared)."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def words(text: str) -> list[str]:
    """The words of a text: a long list of names, kept readable."""
    return text.split()
