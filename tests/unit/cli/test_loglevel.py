"""Levels and fields of lines as services write them; lines of many logs in the order of time."""

from __future__ import annotations

import queue

import pytest

from gemel.client.project import loglevel
from gemel.client.project.merged import Entry, _in_order
from gemel.errors import InvalidInput


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('{"level":"warn","msg":"INFO"}', "warn"),
        ('{"lvl":50,"msg":"x"}', "error"),
        ('{"severityNumber":17}', "error"),
        ('{"log":{"level":"debug"}}', "debug"),
        ('{"msg":"ERROR"}', None),
        ("time=2026 level=error msg=x", "error"),
        ("2026-11-28 16:00:00,123 - app - WARNING - disk is full", "warn"),
        ("WARNING:root:x", "warn"),
        ("[2026-11-28] [error] [pid 1] x", "error"),
        ("2026/11/28 16:00:00 [notice] 1#1: start", "info"),
        ("2026-11-28 16:00:00 UTC [1] LOG:  listening", "info"),
        ("2026-11-28 16:00:00 UTC [1] FATAL:  no", "fatal"),
        ("E1128 16:00:00.000000 1 main.go:1] x", "error"),
        ("<3>failed", "error"),
        ("\x1b[33mWARN\x1b[0m x", "warn"),
        ("an error has come about", None),
        ("GET /ERROR-pages", None),
        ("{broken", None),
        ("", None),
    ],
)
def test_levels(line: str, level: str | None) -> None:
    found = loglevel.level_of(line, loglevel.fields(line))
    assert (loglevel.LEVELS[found] if found is not None else None) == level


def passed(lines: list[str], **wanted: object) -> list[str]:
    given = {"grep": "", "ignore_case": False, "level": "", "members": (), **wanted}
    sieve = loglevel.Sieve(loglevel.parse(**given))  # type: ignore[arg-type]
    return [line for line in lines if sieve.wants(line)]


def test_filters() -> None:
    lines = [
        "INFO fine",
        "ERROR it broke",
        "  File x, line 1",
        "no level",
        "INFO again",
        "  details of it",
        '{"level":"error","user":{"id":7},"ok":true}',
    ]
    assert passed(lines, level="warn") == [lines[1], lines[2], lines[6]]
    assert passed(lines, level="error", grep="BROKE", ignore_case=True) == [lines[1]]
    assert passed(lines, members=("user.id=7", "ok=true", "level")) == [lines[6]]
    assert passed(lines, members=("user.id=8",)) == []
    assert passed(lines) == lines


@pytest.mark.parametrize("wrong", [{"grep": "("}, {"level": "loud"}, {"members": ("=x",)}])
def test_what_is_no_filter(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        passed([], **wrong)


def test_lines_of_many_logs_are_put_in_order() -> None:
    lines: queue.Queue[Entry | BaseException | None] = queue.Queue()
    for at, place in (("3", 0), ("1", 1), ("2", 1)):
        lines.put(Entry(at, place, "x", False))
    lines.put(None)
    lines.put(None)
    assert [entry.at for entry in _in_order(lines, 2, 5.0)] == ["1", "2", "3"]
    lines.put(ValueError())
    with pytest.raises(ValueError):
        list(_in_order(lines, 1, 0.1))
