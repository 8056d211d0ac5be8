"""Entries of lists, kept while a container stays as it is.

A busy engine is asked for its list far more often than most containers change; an entry
takes some twenty microseconds to make, and there may be hundreds.
"""

from __future__ import annotations

from gemel.engine import inspect
from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.engine.records import Container

#: What an entry was made from, all but times in words.
_Made = tuple[object, ...]


class Listing:
    """The entries of GET /containers/json."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._kept: dict[str, tuple[_Made, Json]] = {}

    def entries(self, shown: list[Container]) -> list[Json]:
        """An entry for each; they belong to this object, nobody changes them."""
        if len(self._kept) > 2 * len(self._core.containers) + 16:
            self._kept = {id: k for id, k in self._kept.items() if id in self._core.containers}
        return [self._entry(one) for one in shown]

    def _entry(self, one: Container) -> Json:
        state = one.state
        # the revision counts what was saved and told; the rest changes a moment before that
        made: _Made = (
            self._core.revisions.get(one.id, 0), one.name, state.status, state.health,
            state.exit_code, state.started_at, len(one.endpoints), len(one.bindings),
        )  # fmt: skip
        known = self._kept.get(one.id)
        if known is not None and known[0] == made:
            return {**known[1], "Status": inspect.status_text(one)}
        entry = inspect.summary(self._core, one)
        self._kept[one.id] = (made, entry)
        return entry
