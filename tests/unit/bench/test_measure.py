"""The benchmarks' arithmetic and table; what they measure is no test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bench import report
from bench.measure import Aim, Case, in_turns
from bench.parts.compose import write_file

from gemel.compose import load


def _say(log: list[str], name: str, value: float) -> Callable[[], float]:
    def once() -> float:
        log.append(name)
        return value

    return once


def test_candidates_are_measured_in_turns_and_each_begins_a_round() -> None:
    log: list[str] = []
    case = Case("part", "what")
    in_turns(case, {"a": _say(log, "a", 1.0), "b": _say(log, "b", 2.0)}, rounds=3, seconds=60)
    assert "".join(log) == "ab" + "ab" + "ba" + "ab"  # the first round only warms up
    assert case.series == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_a_measurement_is_bounded_in_time_but_has_three_rounds() -> None:
    log: list[str] = []
    case = in_turns(Case("part", "what"), {"a": _say(log, "a", 1.0)}, rounds=50, seconds=0)
    assert len(case.series["a"]) == 3
    assert "3 of 50" in case.notes[0]


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim(0.5, "peer"), True),
        (Aim(0.2, "peer"), False),
        (Aim(0.5, "absent"), None),
        (Aim(1.0), True),
        (Aim(0.9), False),
        (Aim(1.0, of="absent"), None),
    ],
)
def test_an_aim_is_met_or_missed_or_cannot_be_told(aim: Aim, met: bool | None) -> None:
    case = Case("part", "what", series={"gemel": [0.5, 1.0, 9.0], "peer": [2.0, 4.0, 4.0]})
    assert case.verdict(aim) is met


def test_spread_is_the_quartiles_or_the_extremes_of_few() -> None:
    assert Case("p", "w", series={"a": [3.0, 1.0, 2.0]}).spread("a") == (1.0, 3.0)
    assert Case("p", "w", series={"a": [5.0, 1.0, 2.0, 3.0, 4.0]}).spread("a") == (2.0, 4.0)


def test_the_table_names_unit_ratio_and_aim() -> None:
    case = Case("api", "start", series={"gemel": [0.05], "dockerd": [0.2]})
    case.aims.append(Aim(0.1, "dockerd"))
    lines = report.table([case], markdown=True).splitlines()
    assert "| gemel | 50 ms | 50 ms – 50 ms | 1 |  | ≤ 0.1 × dockerd: MISSED |" in lines[2]
    assert "| dockerd | 200 ms | 200 ms – 200 ms | 1 | 0.25 |  |" in lines[3]
    document = report.document({}, {}, [case], {})
    assert document["cases"][0]["ratios"] == {"dockerd": 0.25}
    assert document["cases"][0]["aims"][0]["met"] is False


def test_the_measured_project_is_a_valid_one(tmp_path: Path) -> None:
    place = write_file(tmp_path, "twenty", 20)
    project = load((), cwd=str(place), env={}, name="bench").project
    assert len(project.services) == 20
