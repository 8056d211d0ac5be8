"""The guest kernels on this machine, and which one is used.

One folder for each in ``paths.kernels``, renamed into place when it is whole, so any
number of engines may make the same one at once. The file ``chosen`` names the one in use.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from gemel.errors import Conflict, NotFound
from gemel.host import files
from gemel.model.paths import Paths

#: Part of a kernel folder's name: goes up when what is put there changes.
LAYOUT = "3"
#: What kernels made by ``gemel kernel build`` are called, before their version.
OWN = "gemel-"
#: The file that names the folder of the kernel in use.
CHOSEN = "chosen"
#: ``use``'s word for the distribution's kernel.
DEFAULT = "default"

_FOLDER = re.compile(rf"[a-z0-9.+~%-]+_[A-Za-z0-9.+~%-]+_{LAYOUT}")


class Kernel(msgspec.Struct, frozen=True):
    """A guest kernel on this machine.

    name: the package's, or an own kernel's; version: the package's; vmlinux: the ELF
    kernel; modules: folder of ``NAME.ko`` files and ``modules.list``, their order.
    """

    name: str
    version: str
    vmlinux: Path
    modules: Path

    @property
    def own(self) -> bool:
        """Whether ``gemel kernel build`` made it."""
        return self.name.startswith(OWN)

    @property
    def full_name(self) -> str:
        """Name and version: no two kernels have the same."""
        return f"{self.name}_{self.version}"


def folder_of(paths: Paths, name: str, version: str) -> Path:
    """Where the kernel of that name and version is, or will be."""
    return paths.kernels / f"{name}_{version.replace(':', '%3a')}_{LAYOUT}"


def kernel_in(folder: Path) -> Kernel:
    """The kernel whose folder that is."""
    name, version, _ = folder.name.rsplit("_", 2)
    return Kernel(name, version.replace("%3a", ":"), folder / "vmlinux", folder / "modules")


def current(paths: Paths) -> Kernel | None:
    """The kernel in use; None if none was chosen yet, or it is not there any more."""
    try:
        name = (paths.kernels / CHOSEN).read_text().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    if not _FOLDER.fullmatch(name):
        return None
    folder = paths.kernels / name
    return kernel_in(folder) if folder.is_dir() else None


def present(paths: Paths) -> list[Kernel]:
    """All that are here, by name."""
    return [kernel_in(f) for f in sorted(paths.kernels.glob(f"*_*_{LAYOUT}")) if f.is_dir()]


def choose(paths: Paths, kernel: Kernel) -> None:
    """Has every VM that is started from now on use it."""
    folder = folder_of(paths, kernel.name, kernel.version)
    files.write(paths.kernels / CHOSEN, folder.name + "\n", mode=0o644, durable=True)


def find(paths: Paths, wanted: str) -> Kernel:
    """The kernel of that name, of that name and version, or whose name alone begins so.

    ``default``: the distribution's, the last that was fetched. Raises NotFound, Conflict.
    """
    here = present(paths)
    if wanted == DEFAULT:
        found = sorted((k for k in here if not k.own), key=lambda k: k.vmlinux.stat().st_mtime_ns)
        if found:
            return found[-1]
        raise NotFound("the distribution's kernel is not here yet", resolution="gemel kernel fetch")
    for matches in (
        [k for k in here if wanted in (k.full_name, k.name)],
        [k for k in here if wanted and k.full_name.startswith(wanted)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise Conflict(
                f"more than one guest kernel is called {wanted}",
                details=", ".join(k.full_name for k in matches),
                resolution="name it as NAME_VERSION; `gemel kernel list` shows both",
            )
    raise NotFound(
        f"there is no guest kernel {wanted}",
        details="here are: " + (", ".join(k.name for k in here) or "none"),
        resolution="`gemel kernel fetch` gets the distribution's, `gemel kernel build` makes one",
    )
