"""The guest kernel for tests: fetched ahead by tests.prepare, since tests have no way out."""

from __future__ import annotations

import os
from pathlib import Path

from gemel.model.paths import Paths

CACHE = Path(os.environ.get("GEMEL_TEST_CACHE") or Path(__file__).parents[1] / "build/test-cache")


def use_kernels(paths: Paths) -> None:
    """Has an engine's folders use the kernels that were fetched."""
    kernels = CACHE / "kernels"
    assert kernels.is_dir(), f"there is no {kernels}: run `python -m tests.prepare {CACHE}` first"
    paths.root.mkdir(parents=True, exist_ok=True)
    if not paths.kernels.exists():
        paths.kernels.symlink_to(kernels)
