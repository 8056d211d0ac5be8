"""Calls of a service as they come, to be kept as HAR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

from gemel.cli import har, output

Json = dict[str, Any]
_PATH = "/gemel/traffic"


class Client(Protocol):
    """What is needed of the client."""

    def stream(self, method: str, path: str, query: Any = None) -> Iterator[Json]:
        """JSON messages as they come."""


class Recording:
    """Begins when it is made: what comes after that is kept, up to ``most`` calls."""

    def __init__(self, client: Client, name: str, project: str | None, bodies: int, most: int):
        """bodies: bytes that are kept of each."""
        self._calls: dict[int, Json | None] = {}
        """By number; None if HAR has no form for it."""
        self.others: Counter[str] = Counter()
        """How many there were of protocols that HAR has no form for."""
        self._client = client
        self._most = most
        self._query = {"full": True, "of": name, "bodies": bodies, "project": project}
        before = client.stream("GET", _PATH, query={"tail": 1})
        self._before = max((int(call["id"]) for call in before if "id" in call), default=0)
        self._found = client.stream("GET", _PATH, query=self._query | {"follow": True, "tail": -1})

    @property
    def kept(self) -> list[Json]:
        """HAR's entries."""
        return [entry for entry in self._calls.values() if entry is not None]

    def follow(self) -> None:
        """Takes calls as they come until there are enough. Interrupted by what a signal raises."""
        for call in self._found:
            if "dropped" in call:
                output.warn(f"{call['dropped']} calls are missing: they came too fast")
            elif "id" in call and self._take(call):
                return

    def finish(self) -> None:
        """Takes what was recorded meanwhile and had not come yet."""
        last = max(self._calls, default=self._before)
        if not self._enough():
            for call in self._client.stream("GET", _PATH, query=self._query):
                if int(call.get("id", 0)) > last and self._take(call):
                    return

    def _take(self, call: Json) -> bool:
        """Keeps it. Whether there are enough now."""
        if call["protocol"] in ("http", "h2", "grpc"):
            self._calls[int(call["id"])] = har.entry(call)
        else:
            self.others[call["protocol"]] += 1
            self._calls[int(call["id"])] = None
        return self._enough()

    def _enough(self) -> bool:
        return len(self._calls) - self.others.total() >= self._most
