"""The instance's own disk: an ext4 file system in a sparse file.

All are copies of one empty file system and have one size, so that a snapshot's
device fits every image. The host never mounts one: what a guest has written
into a file system's structures is nothing for the host's kernel to parse.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from gemel.host import files, sparse
from gemel.host.run import run
from gemel.model.paths import Paths

SIZE = 32 << 30
#: Goes up when the empty file system is made otherwise.
LAYOUT = 1
NAME = "disk.ext4"
_JOURNAL_MIB = 16


def empty_disk(paths: Paths) -> Path:
    """Where the empty file system is kept."""
    return paths.root / "microvm" / f"empty-{SIZE >> 30}g-{LAYOUT}.ext4"


async def ensure_empty(paths: Paths) -> Path:
    """Makes the empty file system once. Raises Unavailable without e2fsprogs, Failed."""
    target = empty_disk(paths)
    if target.exists():
        return target
    files.folder(target.parent)
    temporary = target.with_suffix(f".{secrets.token_hex(4)}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    os.truncate(temporary, SIZE)
    try:
        await run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"),
                *("-O", "^resize_inode,metadata_csum,64bit", "-J", f"size={_JOURNAL_MIB}"),
                # written at once, as holes: the guest need not do it in the background
                *("-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
                *("-i", "65536", "-L", "gemel-layer", str(temporary)),
            ]
        )
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


async def ensure_layer(paths: Paths, layer: Path) -> Path:
    """The disk in the instance's layer folder, made if it is missing."""
    target = layer / NAME
    if not target.exists():
        empty = await ensure_empty(paths)
        files.folder(layer)
        await asyncio.to_thread(sparse.copy, empty, target)
    return target
