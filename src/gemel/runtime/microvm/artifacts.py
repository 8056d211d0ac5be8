"""Where the compiled parts (guest agent, relay) lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gemel.errors import Unavailable


def folders() -> list[Path]:
    """Where to look, in this order: GEMEL_LIBEXEC, the installed prefix, the source tree."""
    found: list[Path] = []
    if named := os.environ.get("GEMEL_LIBEXEC"):
        found.append(Path(named))
    found.append(Path(sys.prefix) / "libexec" / "gemel")
    found.append(Path(__file__).resolve().parents[4] / "build" / "guest")
    return found


def find(name: str) -> Path:
    """The compiled file ``name`` (``agent``, …). Raises Unavailable if it was not built."""
    for folder in folders():
        path = folder / name
        if path.is_file():
            return path
    raise Unavailable(
        f"the micro VMs' {name} is not built",
        details="looked in " + ", ".join(str(folder) for folder in folders()),
        resolution="run `make setup` in gemel's source folder, or name its folder in GEMEL_LIBEXEC",
    )
