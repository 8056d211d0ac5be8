"""The files of the page, read once, before the process gives up its rights."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent / "static"
#: The terminal, xterm.js: fetched when gemel is set up (tools/fetch_xterm.py), not kept here.
VENDOR = Path(__file__).parent / "vendor"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file as it is sent."""

    kind: str
    plain: bytes
    packed: bytes
    tag: str


def load() -> dict[str, Asset]:
    """All files by their path below ``/``; those of the terminal only if they are there."""
    found: dict[str, Asset] = {}
    for root, prefix in ((HERE, ""), (VENDOR, "vendor/")):
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.suffix in _TYPES:
                data = file.read_bytes()
                found[prefix + file.relative_to(root).as_posix()] = Asset(
                    _TYPES[file.suffix],
                    data,
                    gzip.compress(data, 6, mtime=0),
                    f'"{hashlib.sha256(data).hexdigest()[:24]}"',
                )
    return found
