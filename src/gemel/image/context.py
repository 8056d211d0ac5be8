"""A build's context: an archive from a client, put into a folder and nowhere else.

Every name is walked to from the folder with O_NOFOLLOW, so neither ``..``,
absolute names, symbolic links nor hard links lead out of it. Symbolic links are
made as they stand and never followed here; buildah copies in a chroot.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gemel.errors import InvalidInput
from gemel.image.tarfmt import FILE, FOLDER, LINK, SYMLINK, Entry, Limits, scan

_PIECE = 1 << 20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(file: BinaryIO, folder: Path, limits: Limits) -> None:
    """Puts the archive's files, folders and links into ``folder``. Blocks; for a thread.

    Devices, sockets and pipes are left out: no build can copy them. Raises
    InvalidInput for what is damaged or leads out of the folder.
    """
    times: list[tuple[bytes, int]] = []
    file.seek(0)
    root = os.open(folder, _FOLDER_FLAGS)
    try:
        for entry in list(scan(file, limits)):
            if not entry.path:
                continue
            try:
                with _parent(root, entry.path) as (parent, name):
                    _make(root, parent, name, entry, file)
            except OSError as error:
                raise _refused(entry, error) from error
            if entry.kind == FOLDER:
                times.append((entry.path, entry.mtime))
        for path, time in reversed(times):
            with contextlib.suppress(OSError), _parent(root, path) as (parent, name):
                os.utime(name, (time, time), dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(root)


@contextlib.contextmanager
def _parent(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The folder that holds ``path``, opened (made where missing), and the last name."""
    parts = path.split(b"/")
    here = os.dup(root)
    try:
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, _FOLDER_FLAGS, dir_fd=here)
            os.close(here)
            here = below
        yield here, parts[-1]
    finally:
        os.close(here)


def _make(root: int, parent: int, name: bytes, entry: Entry, file: BinaryIO) -> None:
    if entry.kind == FOLDER:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
        opened = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
        try:
            os.fchmod(opened, entry.mode | 0o700)
        finally:
            os.close(opened)
        return
    if entry.kind not in (FILE, SYMLINK, LINK):
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
    if entry.kind == SYMLINK:
        os.symlink(entry.target, name, dir_fd=parent)
    elif entry.kind == LINK:
        with _parent(root, entry.target) as (other, source):
            os.link(source, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        return
    else:
        _write(parent, name, entry, file)
    os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _write(parent: int, name: bytes, entry: Entry, file: BinaryIO) -> None:
    with os.fdopen(os.open(name, _FILE_FLAGS, 0o600, dir_fd=parent), "wb") as out:
        file.seek(entry.offset)
        left = entry.size
        while left:
            data = file.read(min(left, _PIECE))
            if not data:
                raise InvalidInput("the build context ends too early")
            out.write(data)
            left -= len(data)
        os.fchmod(out.fileno(), entry.mode)


def split(folder: Path, name: str, place: Path) -> None:
    """Moves a folder at the top of the context, which the client put there, to ``place``.

    Raises InvalidInput if it is not there.
    """
    source = folder / name
    if "/" in name or name in ("", ".", "..") or source.is_symlink() or not source.is_dir():
        raise InvalidInput(f"the build's archive has no folder {name[:100]!r} at its top")
    source.rename(place)


def read_text(folder: Path, name: str, limit: int = 4 << 20) -> str | None:
    """A file of the context; None without it. Raises InvalidInput if it is a way out."""
    top = folder.resolve()
    path = (top / name.lstrip("/")).resolve()
    if not path.is_relative_to(top):
        raise InvalidInput(f"{name} leads out of the build context")
    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"{name} is larger than {limit >> 20} MiB")
    return data.decode("utf-8", "replace")


def _refused(entry: Entry, error: OSError) -> InvalidInput:
    shown = entry.path[:200].decode("utf-8", "backslashreplace")
    return InvalidInput(
        f"the build context is refused at {shown!r}",
        details=f"{error.strerror}: a name may not lead through a link or a file",
    )
