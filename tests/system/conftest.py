"""One engine for all tests of a file; a fresh one for those that kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine import EngineProcess
from tests.system.networld import outside, world

__all__ = ["engine", "fresh_engine", "outside", "world"]


def _engine() -> Iterator[EngineProcess]:
    engine = EngineProcess()
    try:
        engine.start()
        engine.import_busybox()
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """An engine with the busybox image, shared by the tests of a file."""
    yield from _engine()


@pytest.fixture
def fresh_engine() -> Iterator[EngineProcess]:
    """An engine that a test has for itself."""
    yield from _engine()
