"""A trace is drawn within the terminal's width, whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.cli import waterfall


def span(id: str, parent: str, start: float, duration: float, **more: Any) -> dict[str, Any]:
    return {
        "Id": id, "ParentId": parent, "Service": f"s{id}", "Peer": "", "Name": "GET /x",
        "Kind": "server", "Start": start, "Duration": duration, "Status": "200", "Error": False,
        "Inferred": False, "Source": "observed", "CallId": id, "Attributes": {}, **more,
    }  # fmt: skip


def trace(*spans: dict[str, Any]) -> dict[str, Any]:
    start = min(one["Start"] for one in spans)
    return {
        "Id": "t", "Root": "GET /x", "RootService": "s1", "Services": [], "Start": start,
        "Duration": max(one["Start"] + one["Duration"] for one in spans) - start, "Errors": 1,
        "Inferred": True, "SpanCount": len(spans), "Spans": list(spans), "Logs": [],
    }  # fmt: skip


def test_branches_bars_and_marks() -> None:
    drawn = waterfall.lines(
        trace(
            span("1", "", 0.0, 1.0),
            span("2", "1", 0.25, 0.5, Inferred=True),
            span("3", "2", 0.25, 0.25, Status="503", Error=True,
                 Attributes={"error.message": "sold\x1b[2Jout"}),
            span("4", "1", 0.75, 0.25),
        ),
        80,
    )  # fmt: skip
    rows = [row.rstrip() for row in drawn[2:]]
    assert rows[0].startswith("s1  GET /x ")
    assert rows[1].startswith("├ s2  GET /x ~")
    assert rows[2].startswith("│ └ s3  GET /x 503")
    assert rows[3].strip() == "sold·[2Jout"
    assert rows[4].startswith("└ s4")
    bars = [row.count("█") for row in rows]
    assert bars[0] > bars[1] > bars[2] > 0
    assert "inferred" in rows[-1]


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.floats(0, 10), st.floats(0, 10), st.text(max_size=60)),
        min_size=1,
        max_size=12,
    ),
    st.integers(10, 200),
)
def test_any_trace_fits(given: list[tuple[int, float, float, str]], width: int) -> None:
    spans = [
        span(str(n), str(parent) if parent < n else "", start, duration, Name=name)
        for n, (parent, start, duration, name) in enumerate(given)
    ]
    for line in waterfall.lines(trace(*spans), width)[2:-2]:
        assert len(line) <= max(width, 50) + 12
        assert line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0µs"), (0.0123, "12.3ms"), (1.5, "1.5s"), (250, "250s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert waterfall.took(seconds) == words
