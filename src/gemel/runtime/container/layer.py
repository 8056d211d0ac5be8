"""What a container has in its root: whole (docker export), or what it changed (docker commit).

A change is told the way image layers tell it (OCI image-spec, layer.md): files
and folders as they are now, ``.wh.NAME`` for what is gone, ``.wh..wh..opq`` in a
folder whose earlier content is hidden. The kernel's overlay notes the same as
character devices 0:0 and an extended attribute.
"""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

from gemel.host import rooted
from gemel.model.instance import InstanceSpec
from gemel.runtime.container.packing import Packer

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
#: Folders that are the kernel's, never an image's.
_KERNEL = ("dev", "proc", "sys")


def foreign(spec: InstanceSpec) -> frozenset[str]:
    """Paths (without a leading slash) whose content is not the root's own: mounts and gemel's."""
    targets = [mount.target for mount in spec.mounts] + [file.target for file in spec.files]
    return frozenset((*_KERNEL, *(target.strip("/") for target in targets)))


class RootPacker(Packer):
    """The root with everything mounted in it left empty."""

    def __init__(self, tar: tarfile.TarFile, skip: frozenset[str]) -> None:
        super().__init__(tar)
        self._skip = skip

    def add(self, folder: int, name: str, path: str) -> None:
        if path not in self._skip:
            super().add(folder, name, path)
            return
        entry = self.entry(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
        if entry is not None and (entry.isdir() or entry.isreg()):
            entry.size = 0
            self.tar.addfile(entry)


class LayerPacker(Packer):
    """The upper folder of an overlay as a layer."""

    def __init__(self, tar: tarfile.TarFile, skip: frozenset[str]) -> None:
        super().__init__(tar)
        self._skip = skip

    def add(self, folder: int, name: str, path: str) -> None:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if path == ".":
            self._folder(folder, name, path)
        elif path in self._skip:
            return
        elif stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            above, _, base = path.rpartition("/")
            self._mark(f"{above}/{WHITEOUT}{base}" if above else WHITEOUT + base)
        else:
            super().add(folder, name, path)
            if stat.S_ISDIR(found.st_mode) and _is_opaque(folder, name):
                self._mark(f"{path}/{OPAQUE}")

    def _mark(self, path: str) -> None:
        self.tar.addfile(tarfile.TarInfo(path))


def _is_opaque(folder: int, name: str) -> bool:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.getxattr(fd, _OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)


def pack(packer: Packer, root: Path) -> None:
    """Adds all of the folder ``root``. Blocks; for a thread."""
    with rooted.root(root) as fd:
        packer.add(fd, ".", ".")
