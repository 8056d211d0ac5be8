"""Which recorded answer a request gets. Pure.

Calls that ask the same (method, path with query, body) are answered in the order in which they
were recorded; the last answer is given again and again. One that differs in its body only gets
the next answer of its method and path, since bodies hold what differs by nature.
"""

from __future__ import annotations

from collections.abc import Iterable

from gemel.model.replay import RecordedCall, RecordedService

_Key = tuple[str, str, str, int]


class Answers:
    """The calls of some services."""

    def __init__(self, services: Iterable[RecordedService]) -> None:
        self._calls: dict[_Key, list[RecordedCall]] = {}
        self._used: dict[tuple[_Key, bytes | None], int] = {}
        self._names: dict[str, str] = {}
        self._at: dict[int, set[str]] = {}
        for service in services:
            for name in (service.name, *service.aliases):
                self._names[name.lower()] = service.name
            for call in service.calls:
                key = (service.name, call.method.upper(), call.path, call.port)
                self._calls.setdefault(key, []).append(call)
                self._at.setdefault(call.port, set()).add(service.name)

    @property
    def ports(self) -> list[int]:
        """Where somebody was asked."""
        return sorted(self._at)

    def service(self, host: str, port: int) -> str:
        """Who is meant by a Host header; the only one at the port if that does not tell."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        found = self._names.get(name.lower().rstrip("."))
        if found is None and len(self._at.get(port, ())) == 1:
            found = next(iter(self._at[port]))
        return found or ""

    def find(
        self, service: str, method: str, path: str, port: int, body: bytes
    ) -> RecordedCall | None:
        """The answer to a request, or None if nothing like it was recorded."""
        key = (service, method.upper(), path, port)
        calls = self._calls.get(key)
        if not calls:
            return None
        same = [call for call in calls if call.body == body]
        turn = (key, body if same else None)
        number = self._used.get(turn, 0)
        self._used[turn] = number + 1
        chosen = same or calls
        return chosen[min(number, len(chosen) - 1)]

    def near(self, service: str) -> list[str]:
        """Some of what was recorded of a service, for who asks for something else."""
        return [f"{method} {path}" for name, method, path, _ in self._calls if name == service][:10]
