"""What `gemel record` keeps: each call once, also those that Ctrl-C finds under way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gemel.cli.recording import Recording

Json = dict[str, Any]


def call(number: int, protocol: str = "http") -> Json:
    message = {"headers": [], "body": "", "size": 0}
    return {
        "id": str(number),
        "protocol": protocol,
        "start": 0.0,
        "duration": 0.0,
        "method": "GET",
        "path": f"/{number}",
        "status": 200,
        "source": {"name": "a", "address": "10.0.0.2"},
        "target": {"name": "b", "address": "10.0.0.3"},
        "port": 80,
        "request": message,
        "response": message,
    }


class Engine:
    """Has recorded some calls, and tells who follows of fewer before Ctrl-C."""

    def __init__(self, *recorded: Json, told: int) -> None:
        self.recorded = list(recorded)
        self.told = told

    def stream(self, method: str, path: str, query: Any = None) -> Iterator[Json]:
        if query.get("follow"):
            return self._follow()
        return iter(self.recorded[-query["tail"] :] if "tail" in query else self.recorded)

    def _follow(self) -> Iterator[Json]:
        before = len(self.recorded)
        self.recorded += [call(n) for n in range(before + 1, before + 4)]
        yield from self.recorded[before : before + self.told]
        raise KeyboardInterrupt


def paths(recording: Recording) -> list[str]:
    return [entry["request"]["url"].rpartition("/")[2] for entry in recording.kept]


@pytest.mark.parametrize("told", range(4))
def test_each_call_is_kept_once(told: int) -> None:
    recording = Recording(Engine(call(1), call(2), told=told), "b", None, 0, 100)
    with pytest.raises(KeyboardInterrupt):
        recording.follow()
    recording.finish()
    assert paths(recording) == ["3", "4", "5"]


def test_no_more_than_were_asked_for() -> None:
    recording = Recording(Engine(told=3), "b", None, 0, 2)
    recording.follow()
    recording.finish()
    assert paths(recording) == ["1", "2"]


def test_what_has_no_form_is_counted() -> None:
    engine = Engine(told=0)
    recording = Recording(engine, "b", None, 0, 100)
    engine.recorded += [call(1, "redis"), call(2), {"recording": "begins now"}]
    recording.finish()
    assert paths(recording) == ["2"] and recording.others == {"redis": 1}
