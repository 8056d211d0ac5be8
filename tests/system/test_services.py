"""What gemel adds to a service: lint before a start, outer checks, updates, the inner loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import EngineProcess
from tests.system.test_compose_cli import App

pytestmark = pytest.mark.root


@pytest.fixture
def app(engine: EngineProcess, tmp_path: Path) -> Iterator[App]:
    """A project that is gone after the test."""
    one = App(engine, tmp_path)
    yield one
    engine.gemel("-p", one.name, "down", "-v", "-t", "1", "--remove-orphans", cwd=Path("/"))
    assert one.left() == []


def test_what_is_not_carried_out_is_told_before_anything_starts(app: App) -> None:
    text = """
services:
  web:
    image: IMAGE
    command: ["sh", "-c", "LOOP"]
    annotations: {a: b}
    ipc: host
    stop_grace_period: 1s
"""
    app.file(text)
    started = app("up", "-d")
    assert "compose.yaml:7:5: services.web.annotations is ignored" in started.stderr
    app("down", "-t", "1")
    linted = app("config", "--lint")
    assert "services.web.annotations is ignored" in linted.stdout
    assert "ipc" not in linted.stdout

    refused = app("up", "-d", "--runtime", "web=microvm", check=False)
    assert refused.returncode != 0
    assert "compose.yaml:8:5: services.web.ipc is refused in a micro VM" in refused.stderr
    assert app.left() == []
    app.file(text.replace("IMAGE", "IMAGE\n    runtime: microvm"))
    linted = app("config", "--lint", check=False)
    assert linted.returncode != 0
    assert "services.web.ipc is refused" in linted.stdout
