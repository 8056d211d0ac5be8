"""The guest kernel for tests: fetched ahead by tests.prepare, since tests have no way out.

GEMEL_TEST_KERNEL names the folder of another kernel that all tests are to use, such as one that
``gemel kernel build`` has made: /var/lib/gemel/kernels/gemel-….
"""

from __future__ import annotations

import os
from pathlib import Path

from gemel.model.paths import Paths
from gemel.runtime.microvm import kernels as store

CACHE = Path(os.environ.get("GEMEL_TEST_CACHE") or Path(__file__).parents[1] / "build/test-cache")


def use_kernels(paths: Paths) -> None:
    """Has an engine's folders use the kernels that were fetched, or GEMEL_TEST_KERNEL."""
    if paths.kernels.exists():
        return
    paths.root.mkdir(parents=True, exist_ok=True)
    if named := os.environ.get("GEMEL_TEST_KERNEL"):
        paths.kernels.mkdir()
        folder = Path(named).resolve(strict=True)
        (paths.kernels / folder.name).symlink_to(folder)
        store.choose(paths, store.kernel_in(folder))
        return
    kernels = CACHE / "kernels"
    assert kernels.is_dir(), f"there is no {kernels}: run `python -m tests.prepare {CACHE}` first"
    paths.kernels.symlink_to(kernels)
