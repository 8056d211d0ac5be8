"""A tree of files as a tar, while whoever it belongs to goes on changing it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Callable

#: What an entry that was there a moment ago answers when it is removed, or something else now.
_CHANGED = (errno.ENOENT, errno.ESRCH, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.ENXIO)


class _Changing(contextlib.AbstractContextManager[None]):
    """What is removed, or made something else, while it is read is left out."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in _CHANGED


class Packer:
    """Adds a tree to a tar, each name opened in its folder's descriptor without following."""

    def __init__(self, tar: tarfile.TarFile, empty: frozenset[int] = frozenset()) -> None:
        """empty: numbers of file systems whose folders are taken without what is in them."""
        self.tar = tar
        self._empty = empty
        self._links: dict[tuple[int, int], str] = {}

    def add(self, folder: int, name: str, path: str) -> None:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return  # removed meanwhile
        entry = self.entry(found, path)
        if entry is None:
            return
        if entry.isreg():
            self._file(folder, name, entry)
        elif entry.isdir():
            self.tar.addfile(entry)
            if found.st_dev not in self._empty:
                self._folder(folder, name, path)
        else:
            if entry.issym():
                with _Changing():
                    entry.linkname = os.readlink(name, dir_fd=folder)
                if not entry.linkname:
                    return
            self.tar.addfile(entry)

    def entry(self, found: os.stat_result, path: str) -> tarfile.TarInfo | None:
        """The header; None for what no tar holds (sockets)."""
        kinds = {
            stat.S_IFREG: tarfile.REGTYPE,
            stat.S_IFDIR: tarfile.DIRTYPE,
            stat.S_IFLNK: tarfile.SYMTYPE,
            stat.S_IFIFO: tarfile.FIFOTYPE,
            stat.S_IFCHR: tarfile.CHRTYPE,
            stat.S_IFBLK: tarfile.BLKTYPE,
        }
        kind = kinds.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        entry = tarfile.TarInfo(path)
        entry.type = kind
        entry.mode = stat.S_IMODE(found.st_mode)
        entry.uid, entry.gid = found.st_uid, found.st_gid
        entry.mtime = int(found.st_mtime)
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        if kind == tarfile.REGTYPE:
            entry.size = found.st_size
            if found.st_nlink > 1:
                earlier = self._links.setdefault((found.st_dev, found.st_ino), path)
                if earlier != path:
                    entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, earlier, 0
        return entry

    def _file(self, folder: int, name: str, entry: tarfile.TarInfo) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = -1
        with _Changing():
            fd = os.open(name, flags, dir_fd=folder)
        if fd < 0:
            return
        with os.fdopen(fd, "rb") as file:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode):
                return
            entry.size = now.st_size
            self.tar.addfile(entry, _Padded(file, now.st_size))  # type: ignore[arg-type]

    def _folder(self, folder: int, name: str, path: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd, children = -1, []
        try:
            with _Changing():
                fd = os.open(name, flags, dir_fd=folder)
                children = sorted(os.listdir(fd))
            for child in children:
                self.add(fd, child, child if path == "." else f"{path}/{child}")
        finally:
            if fd >= 0:
                os.close(fd)


class _Padded:
    """A file of exactly so many bytes: one that shrinks while it is read ends in zeros."""

    def __init__(self, file: object, size: int) -> None:
        self._read: Callable[[int], bytes] = file.read  # type: ignore[attr-defined]
        self._left = size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._read(wanted)
        data += bytes(wanted - len(data))
        self._left -= len(data)
        return data
