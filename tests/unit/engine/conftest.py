"""An engine over the fake runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gemel.engine import lifecycle
from gemel.model.paths import Paths
from tests.fake.engine import FakeEngine
from tests.fake.runtime import World


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    monkeypatch.setattr(lifecycle, "BACKOFF", 0.001)
    monkeypatch.setattr(lifecycle, "STEADY", 3600.0)  # nothing here runs for so long
    world = World()
    made = FakeEngine(Paths(tmp_path / "root", tmp_path / "run"), world)
    await made.open()
    yield made
    await made.crash()
    await world.close()
