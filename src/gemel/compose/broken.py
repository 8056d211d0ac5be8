"""What of a model is damaged, so that one mistake is told once and later checks go on without it.

Every stage tells what is wrong and goes on. What is wrong is then taken out of the model
(``without``), so that later stages only see what is right, and its place is kept (``Broken``):
what is absent there was not forgotten, and nothing may be told of that.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gemel.compose.problems import Path, Problems
from gemel.compose.schema import NEEDED
from gemel.compose.tables import Table

if TYPE_CHECKING:
    from gemel.compose.yamlread import Document

_NEEDED = Table(NEEDED)


class Broken:
    """Paths of a model at which something was told. Positions in lists do not count."""

    def __init__(self) -> None:
        self._tree: dict[str, Any] = {}
        self._all = False
        self.incomplete = False
        """Whether a file could not be read: what is absent anywhere may stand in it."""

    def __bool__(self) -> bool:
        return self._all or self.incomplete or bool(self._tree)

    def mark(self, path: Path) -> None:
        """``path`` and all below it is not as the person meant it."""
        names = _names(path)
        if not names:
            self._all = True
            return
        node = self._tree
        for name in names[:-1]:
            node = node.setdefault(name, {})
            if _WHOLE in node:
                return
        node[names[-1]] = {_WHOLE: True}

    def touches(self, path: Path) -> bool:
        """Whether what is absent at ``path`` may be so because of something told already."""
        if self._all or self.incomplete:
            return True
        node = self._tree
        for name in _names(path):
            if name not in node:
                return False
            node = node[name]
            if _WHOLE in node:
                return True
        return bool(node)


_WHOLE = ""
"""A key of the tree that no YAML path of interest has: all below is broken."""


def _names(path: Path) -> list[str]:
    """The keys of a path down to the first list."""
    names: list[str] = []
    for part in path:
        if isinstance(part, int):
            break
        names.append(part or "\0")
    return names


Removed = Mapping[Path, list[int]]
"""For lists, by their path: positions that were taken out."""


def without(value: Any, bad: Iterable[Path]) -> Removed:
    """Takes what lies at the paths ``bad`` out of ``value``, in place.

    An entry of a list goes altogether when it loses a key that it must have.
    """
    paths = {_cut(path) for path in bad}
    removed: dict[Path, list[int]] = {}
    for path in sorted(paths, key=_deepest):
        holder = _at(value, path[:-1])
        last = path[-1] if path else None
        if isinstance(holder, dict):
            holder.pop(last, None)
        elif isinstance(holder, list) and isinstance(last, int) and last < len(holder):
            del holder[last]
            removed.setdefault(path[:-1], []).insert(0, last)
    return removed


def _deepest(path: Path) -> tuple[int, int]:
    last = path[-1] if path else 0
    return -len(path), -last if isinstance(last, int) else 0


def _cut(path: Path) -> Path:
    node: Table[tuple[str, ...]] | None = _NEEDED
    for index, part in enumerate(path):
        above = path[index - 1] if index else ""
        if isinstance(above, int) and node is not None and part in (node.entry or ()):
            return path[:index]
        node = node and node.below(part)
    return path


def _at(value: Any, path: Path) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def original(path: Path, removed: Removed) -> Path:
    """Where ``path`` of a value was before ``without`` took something out of it."""
    if not removed:
        return path
    found: Path = ()
    for part in path:
        if isinstance(part, int):
            for gone in removed.get(found, ()):
                part += part >= gone
        found = (*found, part)
    return found


class Scope:
    """Tells of one document, or of a part of it, and takes out of its value what is wrong."""

    def __init__(self, document: Document, problems: Problems, broken: Broken) -> None:
        self.document = document
        self.broken = broken
        self.bad: dict[Path, None] = {}
        """What was told of since the last ``sweep``."""
        self._problems = problems
        self._removed: Removed = {}
        for path in document.broken:
            broken.mark(path)

    def tell(self, path: Path, words: str) -> None:
        """What stands at ``path`` is wrong. No words: it is, but another mistake is why."""
        self._told(path, words)
        self.bad[path] = None
        self.broken.mark(path)

    def tell_key(self, path: Path, words: str, meant: str = "") -> None:
        """A key is wrong; ``meant``: the one that it probably should be."""
        self._told(path, words, key=True)
        self.bad[path] = None
        place = (*path[:-1], meant or path[-1])
        self.broken.mark(place)
        if _cut(place) != place:
            self.bad[_cut(place)] = None

    def tell_gone(self, path: Path, words: str) -> None:
        """The same of something that is no longer in the value."""
        self._told(path, words)
        self.broken.mark(path)
        self._note([path])

    def _told(self, path: Path, words: str, key: bool = False) -> None:
        if words:
            self._problems.add(self.document.place(original(path, self._removed), key), words)

    def _note(self, gone: Iterable[Path]) -> None:
        """Where later stages find what is left of the lists."""
        for path in gone:
            first = original(path, self._removed)
            last = first[-1] if first else ""
            if isinstance(last, int):
                places = self.document.removed.setdefault(first[:-1], [])
                if last not in places:
                    bisect.insort(places, last)

    def sweep(self, value: Any) -> None:
        """Takes out of ``value`` all that was told of. To be called twice at most."""
        if self.bad:
            removed = without(value, self.bad)
            self._note([(*path, index) for path, gone in removed.items() for index in gone])
            self._removed = self._removed or removed
            self.bad = {}
