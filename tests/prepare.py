"""Fetches what tests need from outside, before they shut themselves off from it.

usage: python -m tests.prepare FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gemel.errors import GemelError
from gemel.model.paths import Paths
from gemel.runtime.microvm import artifacts
from gemel.runtime.microvm.initrd import ensure_initrd
from gemel.runtime.microvm.kernel import ensure_kernel
from tests import fetch_clients, promtool, shopimages, toolboximage


async def prepare(folder: Path) -> None:
    """The guest kernel and its initrd, in ``folder``/kernels; the example shop's images."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = Paths(folder, folder / "run")
    kernel = await ensure_kernel(paths, print)
    await ensure_initrd(paths, kernel, artifacts.find("agent"))
    await shopimages.prepare(folder)
    await toolboximage.prepare(folder)


def main(folder: Path) -> None:
    """Everything; without Docker's clients the tests go on."""
    try:
        asyncio.run(prepare(folder))
    except* GemelError as errors:
        sys.exit("\n".join(map(str, errors.exceptions)))
    if why := promtool.fetch(folder):
        print(f"no promtool: {why}", file=sys.stderr)
    if why := fetch_clients.fetch(folder):
        print(f"no current docker and Compose v2: {why}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
