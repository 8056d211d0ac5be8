"""Logs that have been replaced are kept beside the one that is written.

Who writes a log (conmon, the relay) renames a fresh file over it when it is full. ``log.0`` is a
second name of the file that is written now; so it is still there after it was replaced, becomes
``log.1``, and the ones before move on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

#: Bytes of one file and files of one log unless a service says otherwise; as Docker's ``local``.
SIZE, FILES = 20 << 20, 5
MOST_FILES = 100
#: Seconds after which a replaced file goes.
AGE = 14 * 86400.0


class Limits(NamedTuple):
    """size: bytes of one file, 0 for no limit; files: how many there are, the written one too."""

    size: int
    files: int


def limits(options: Mapping[str, str]) -> Limits:
    """From the options max-size and max-file, as json-file reads them."""
    if "max-size" not in options and "max-file" not in options:
        return Limits(SIZE, FILES)
    count = options.get("max-file", "")
    size = _bytes(options["max-size"]) if "max-size" in options else SIZE
    return Limits(size, min(MOST_FILES, max(1, int(count))) if count.isdigit() else 1)


def _bytes(text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    text = text.strip().lower().removesuffix("b").removesuffix("i")
    scale = units.get(text[-1:], 1)
    digits = text.rstrip("kmg")
    try:
        return max(0, int(float(digits) * scale))
    except (ValueError, OverflowError):
        return 0


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def keep(log: Path, files: int) -> None:
    """Moves what was replaced on, and holds the file that is written now. Never raises."""
    held = _older(log, 0)
    written = _inode(log)
    with contextlib.suppress(OSError):
        if written is None or files <= 1 or written == _inode(held):
            return
        if held.exists():
            for number in range(files - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(_older(log, number - 1), _older(log, number))
        os.link(log, held)


def sweep(log: Path, files: int, age: float = AGE) -> None:
    """Removes replaced files that are too many or too old."""
    before = time.time() - age
    for number in range(1, MOST_FILES):
        path = _older(log, number)
        try:
            if number >= files or path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            if number >= files:
                return
        except OSError:
            return


def chain(log: Path) -> list[tuple[Path, tuple[int, int]]]:
    """The files of a log that are there, oldest first, with device and inode."""
    found: dict[tuple[int, int], Path] = {}
    # from the newest on: a file that is moved meanwhile is met twice rather than never
    for path in (log, *(_older(log, number) for number in range(MOST_FILES))):
        inode = _inode(path)
        if inode is not None:
            found.setdefault(inode, path)
        elif path != log and not path.name.endswith(".0"):
            break
    return [(path, inode) for inode, path in found.items()][::-1]
