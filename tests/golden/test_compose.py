"""Golden files of Compose: files of a project and what ``config`` prints, in one file each.

A case holds ``files`` (names below /project), ``env``, options of ``load`` and either
``expected`` (YAML as printed) or ``error`` (as told). GEMEL_UPDATE_GOLDEN=1 writes them
anew; look at the difference before it is kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from gemel.compose.render import canonical, to_yaml
from gemel.compose.yamlwrite import dump
from gemel.errors import GemelError
from tests.unit.compose.support import loaded

CASES = sorted((Path(__file__).parent / "compose").glob("*.yaml"))


def printed(case: dict[str, Any]) -> dict[str, Any]:
    try:
        found = loaded(
            files=case["files"],
            env=case.get("env", {}),
            use=tuple(case.get("use", ())),
            **case.get("options", {}),
        )
    except GemelError as error:
        return {"error": f"{error.brief}\n{error.details}\n"}
    said = {"warnings": list(found.warnings)} if found.warnings else {}
    return {**said, "expected": to_yaml(canonical(found.project))}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    outcome = printed(case)
    if os.environ.get("GEMEL_UPDATE_GOLDEN"):
        kept = {k: case[k] for k in ("about", "files", "use", "env", "options") if k in case}
        path.write_text(dump({**kept, **outcome}))
        return
    wanted = {k: case[k] for k in ("warnings", "expected", "error") if k in case}
    assert outcome == wanted


def test_there_are_cases() -> None:
    assert len(CASES) > 10
