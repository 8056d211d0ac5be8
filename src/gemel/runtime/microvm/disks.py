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

from gemel.errors import Failed
from gemel.host import files, sparse
from gemel.host.run import run
from gemel.model.instance import InstanceSpec
from gemel.model.paths import Paths

SIZE = 32 << 30
#: Goes up when the empty file system is made otherwise.
LAYOUT = 1
NAME = "disk.ext4"
#: The disk of a copy of a running service, until it has started.
WARM_NAME = "warm.ext4"
#: Beside the disk for as long as no VM has had it.
_PRISTINE = "pristine"
_JOURNAL_MIB = 16
#: Seconds for a volume's first content to be copied.
_FILL_TIMEOUT = 600.0


def empty_disk(paths: Paths) -> Path:
    """Where the empty file system is kept."""
    return paths.root / "microvm" / f"empty-{SIZE >> 30}g-{LAYOUT}.ext4"


async def ensure_empty(paths: Paths) -> Path:
    """Makes the empty file system once. Raises Unavailable without e2fsprogs, Failed."""
    target = empty_disk(paths)
    if not target.exists():
        await _make(paths, target, "gemel-layer")
    return target


async def _make(paths: Paths, target: Path, label: str, content: Path | None = None) -> bool:
    """A file system of the fixed size, there whole or not at all. content: a folder to fill it
    with, owners, modes and extended attributes too. False: another was quicker, its is there."""
    folder = files.folder(paths.root / "microvm")
    temporary = folder / f"{target.name}.{secrets.token_hex(4)}.new"
    temporary.touch(mode=0o600)
    os.truncate(temporary, SIZE)
    filled = () if content is None else ("-d", str(content))
    try:
        await run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"),
                *("-O", "^resize_inode,metadata_csum,64bit", "-J", f"size={_JOURNAL_MIB}"),
                # written at once, as holes: the guest need not do it in the background
                *("-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
                *("-i", "65536", "-L", label, *filled, str(temporary)),
            ],
            timeout=_FILL_TIMEOUT,
        )
        return await asyncio.to_thread(_settle, temporary, target)
    except Failed:
        if target.exists():
            return False
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _settle(temporary: Path, target: Path) -> bool:
    """Gives a file its name once all of it is on the disk; never to one that is there."""
    _sync(temporary)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    _sync(target.parent)
    return True


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def ensure_layer(paths: Paths, layer: Path) -> Path:
    """The disk in the instance's layer folder, made if it is missing."""
    target = layer / NAME
    if not target.exists():
        empty = await ensure_empty(paths)
        files.folder(layer)
        await asyncio.to_thread(sparse.copy, empty, target)
        (layer / _PRISTINE).touch(mode=0o600)
    return target


def is_pristine(layer: Path) -> bool:
    """Whether nothing has been written on the instance's disk."""
    return (layer / _PRISTINE).exists()


def use(layer: Path) -> None:
    """A VM is about to get the disk."""
    (layer / _PRISTINE).unlink(missing_ok=True)


async def ensure_volumes(paths: Paths, spec: InstanceSpec) -> dict[Path, Path]:
    """Disks of the block volumes by the volumes' folders; made of the folder's content at the
    first use. Raises Unavailable, Failed."""
    found: dict[Path, Path] = {}
    for mount in spec.mounts:
        if not mount.block or mount.source is None or mount.source in found:
            continue
        disk = found[mount.source] = mount.source.with_name(NAME)
        if disk.exists():
            continue
        # beside the folder there is nothing: the disk has it by its name
        if await _make(paths, disk, "gemel-volume", mount.source.parent):
            await asyncio.to_thread(_empty, mount.source)
    return found


def _empty(folder: Path) -> None:
    """Removes what is in a folder: it is on the disk now."""
    for entry in os.scandir(folder):
        files.remove(Path(entry.path))
