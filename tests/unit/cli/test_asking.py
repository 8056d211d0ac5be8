"""Questions before a project from a registry is started."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from gemel.cli import asking
from gemel.compose.project import Project, Service
from gemel.errors import Failed

PROJECT = Project(
    name="p", working_dir="/p", services={"db": Service("db", {"provider": {"type": "cloudy"}})}
)


def ask(monkeypatch: pytest.MonkeyPatch, answer: str, *files: str, **given: bool) -> None:
    app: Any = SimpleNamespace(files=files, artifacts=SimpleNamespace(references=[]))
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    asking.remote_project(app, PROJECT, **{"yes": False, **given})


def test_programs_of_this_machine_are_run_for_a_strangers_project_only_if_agreed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    oci = "oci://shop/app:1"
    ask(monkeypatch, "y\n", oci)
    assert "  - cloudy" in capfd.readouterr().err
    ask(monkeypatch, "", oci, yes=True)
    ask(monkeypatch, "", "compose.yaml")
    assert "cloudy" not in capfd.readouterr().err
    for answer in ("n\n", "\n", ""):
        with pytest.raises(Failed, match="cancelled by user"):
            ask(monkeypatch, answer, oci)
