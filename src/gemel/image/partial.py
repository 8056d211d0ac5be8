"""Layers of pulls that broke off: kept for a while, so that the next pull goes on from there.

A blob of no image is swept away. One that a pull has brought in whole is spared until its image
is made, or for as long as ``KEPT`` says: an empty file of its name in a folder tells so, also to
an engine that comes after one that was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gemel.host import files

#: Seconds for which a layer without an image is kept, and bytes of all of them.
KEPT = 12 * 3600.0
MOST = 8 << 30


class Partial:
    """The marks of such blobs. size: bytes of a blob by its digest, 0 if it is not there."""

    def __init__(self, folder: Path, size: Callable[[str], int]) -> None:
        self._folder = folder
        self._size = size

    def _path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def mark(self, digest: str) -> None:
        """Before the blob is brought in."""
        files.folder(self._folder)
        self._path(digest).touch()

    def unmark(self, digests: Iterable[str]) -> None:
        """Its image has been made."""
        for digest in digests:
            self._path(digest).unlink(missing_ok=True)

    def clear(self) -> None:
        """Keeps nothing of what has been marked."""
        files.remove(self._folder)

    def spared(self, now: float | None = None) -> set[str]:
        """Digests to keep, the newest first until there is enough; other marks go.

        now: seconds since the epoch.
        """
        now = time.time() if now is None else now
        try:
            marks = [(path.stat().st_mtime, path) for path in self._folder.iterdir()]
        except FileNotFoundError:
            return set()
        kept: set[str] = set()
        total = 0
        for made, path in sorted(marks, reverse=True):
            digest = f"sha256:{path.name}"
            size = self._size(digest)
            # a clock that was put back would keep it for ever
            if abs(now - made) > KEPT or not size or total + size > MOST:
                path.unlink(missing_ok=True)
                continue
            total += size
            kept.add(digest)
        return kept
