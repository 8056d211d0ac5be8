from __future__ import annotations

import pytest

from tests.conformance.conftest import Harness

pytestmark = pytest.mark.root


async def test_smoke(harness: Harness) -> None:
    got = await harness.run(harness.shell("echo out; echo err >&2; exit 3"))
    assert got == (3, b"out\n", b"err\n")
