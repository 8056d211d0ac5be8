"""What a micro VM has in its root, as layers of images tell it (see runtime.container.layer).

Its writable layer lies on a disk that only the guest mounts. So the guest sends
its whole root as a tar, and what it changed is found by comparing that with the
image's own root on the host. The guest's tar is read, checked and written anew,
never unpacked.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gemel.errors import Failed
from gemel.host import rooted
from gemel.model.instance import InstanceSpec
from gemel.runtime.container.layer import WHITEOUT, foreign
from gemel.runtime.microvm import archive

_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


async def receive(folder: Path, spec: InstanceSpec, file: IO[bytes]) -> None:
    """Writes the guest's root as a tar into ``file``. Raises Failed."""
    names = await archive.names(folder, "/")
    skip = foreign(spec)
    wanted = [name for name in names if name not in skip and not name.startswith("-")]
    if not wanted:
        return
    async with contextlib.aclosing(archive.tar(folder, "/", *wanted)) as pieces:
        async for piece in pieces:
            file.write(piece)


def entries(
    file: IO[bytes], spec: InstanceSpec
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The entries of the guest's tar that are the root's own, with clean paths."""
    file.seek(0)
    skip = foreign(spec)
    try:
        with tarfile.open(fileobj=file, mode="r:") as source:
            for entry in source:
                path = posixpath.normpath(entry.name).lstrip("/")
                if path == "." or path.split("/")[0] == ".." or _within(path, skip):
                    continue
                entry.name = path
                yield source, entry
    except tarfile.ReadError as error:
        if file.seek(0, os.SEEK_END):
            raise Failed("the guest's answer is no tar", details=str(error)) from error


def _within(path: str, skip: frozenset[str]) -> bool:
    while path:
        if path in skip:
            return True
        path = path.rpartition("/")[0]
    return False


def whole(file: IO[bytes], spec: InstanceSpec, out: tarfile.TarFile) -> None:
    """The root, with the places of mounts as empty folders where the image has them."""
    for source, entry in entries(file, spec):
        _copy(source, entry, out)
    for path in sorted(foreign(spec)):
        if spec.rootfs is not None and (spec.rootfs / path).is_dir():
            place = tarfile.TarInfo(path)
            place.type, place.mode = tarfile.DIRTYPE, 0o755
            out.addfile(place)


def changed(file: IO[bytes], spec: InstanceSpec, out: tarfile.TarFile) -> None:
    """What is other than in the image: new and changed entries, marks for what is gone."""
    assert spec.rootfs is not None
    with rooted.root(spec.rootfs) as root:
        seen: dict[str, set[str]] = {"": set()}
        for source, entry in entries(file, spec):
            above, _, base = entry.name.rpartition("/")
            seen.setdefault(above, set()).add(base)
            if entry.isdir():
                seen.setdefault(entry.name, set())
            if not _same(root, source, entry):
                _copy(source, entry, out)
        skip = foreign(spec)
        for folder, have in sorted(seen.items()):
            for name in sorted(_children(root, folder) - have):
                path = f"{folder}/{name}" if folder else name
                if not _within(path, skip):
                    mark = f"{folder}/{WHITEOUT}{name}" if folder else WHITEOUT + name
                    out.addfile(tarfile.TarInfo(mark))


def _copy(source: tarfile.TarFile, entry: tarfile.TarInfo, out: tarfile.TarFile) -> None:
    out.addfile(entry, source.extractfile(entry) if entry.isreg() else None)


def _children(root: int, folder: str) -> set[str]:
    try:
        fd = rooted.open_in(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return set()
    try:
        return set(os.listdir(fd))
    finally:
        os.close(fd)


def _same(root: int, source: tarfile.TarFile, entry: tarfile.TarInfo) -> bool:
    """Whether the image has the same at that path: kind, mode, owner, and content or time."""
    try:
        target = source.getmember(entry.linkname) if entry.islnk() else entry
        fd = rooted.open_in(root, entry.name, os.O_PATH | os.O_NOFOLLOW)
    except (OSError, KeyError):
        return False
    try:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (target.uid, target.gid):
            return False
        if _KINDS.get(stat.S_IFMT(found.st_mode)) != target.type:
            return False
        if target.issym():
            return os.readlink("", dir_fd=fd) == target.linkname
        if stat.S_IMODE(found.st_mode) != target.mode & 0o7777:
            return False
        if target.isreg():
            return (found.st_size, int(found.st_mtime)) == (target.size, int(target.mtime))
        return True
    finally:
        os.close(fd)
