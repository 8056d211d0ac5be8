"""The guest kernel: Debian's cloud kernel, from the machine's own apt sources.

The package is downloaded and unpacked into ``paths.kernels`` (see kernels.py), not
installed. It is what is used as long as no other kernel is chosen.
"""

from __future__ import annotations

import asyncio
import gzip
import lzma
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gemel.errors import Failed, Unavailable
from gemel.host import files
from gemel.host.run import run
from gemel.model.paths import Paths
from gemel.runtime.microvm import bzimage, kernels, modules
from gemel.runtime.microvm.kernels import Kernel

META_PACKAGE = "linux-image-cloud-amd64"
DOWNLOAD_TIMEOUT = 600.0

Progress = Callable[[str], None]
_Found = TypeVar("_Found")


async def ensure_kernel(paths: Paths, progress: Progress) -> Kernel:
    """The guest kernel in use; the distribution's, fetched and chosen, if there is none.

    progress: is told in a line what happens. Raises Unavailable if apt cannot
    provide it, Failed if what it provides cannot be used.
    """
    if kernel := kernels.current(paths):
        return kernel
    kernel = await fetch(paths, progress)
    kernels.choose(paths, kernel)
    return kernel


async def fetch(paths: Paths, progress: Progress) -> Kernel:
    """The distribution's newest kernel, which is not chosen by this. Raises as above."""
    files.folder(paths.kernels, 0o755)
    package, version = await _candidate(progress)
    folder = kernels.folder_of(paths, package, version)
    if not folder.is_dir():
        await _build(paths, folder, package, version, progress)
    return kernels.kernel_in(folder)


async def _candidate(progress: Progress) -> tuple[str, str]:
    """Name and version of the package behind the meta package."""
    found = await known_to_apt(_look_up, progress)
    if found is None:
        raise Unavailable(
            f"apt knows no package {META_PACKAGE}",
            resolution="check this machine's apt sources, then run `apt-get update`",
        )
    return found


async def known_to_apt(
    look_up: Callable[[], Awaitable[_Found | None]], progress: Progress
) -> _Found | None:
    """What is found, if need be after apt has read its sources again."""
    found = await look_up()
    if found is None:
        progress("asking apt for its newest lists")
        # what it knows already stays if that fails
        await run(["apt-get", "update", "-q"], timeout=DOWNLOAD_TIMEOUT, check=False)
        found = await look_up()
    return found


async def _look_up() -> tuple[str, str] | None:
    meta = await run(["apt-cache", "show", "--no-all-versions", META_PACKAGE], check=False)
    name = re.search(rb"^Depends: (linux-image-[a-z0-9.+~-]+)", meta.stdout, re.MULTILINE)
    if name is None:
        return None
    package = name[1].decode()
    shown = await run(["apt-cache", "show", "--no-all-versions", package], check=False)
    version = re.search(rb"^Version: ([A-Za-z0-9.+~:-]+)$", shown.stdout, re.MULTILINE)
    return (package, version[1].decode()) if version else None


async def _build(
    paths: Paths, folder: Path, package: str, version: str, progress: Progress
) -> None:
    """Makes a kernel's folder: fetch, unpack, extract, pick, rename into place."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=paths.kernels) as temporary:
        work = Path(temporary)
        progress(f"fetching the guest kernel {package} {version}")
        deb = await download(work, package, version)
        progress("unpacking the guest kernel")
        await run(["dpkg-deb", "-x", str(deb), str(work / "root")], timeout=120)
        made = files.folder(work / "made", 0o755)
        await _extract(work / "root", made / "vmlinux")
        await asyncio.to_thread(_pick, work / "root", files.folder(made / "modules", 0o755))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another engine was faster: its folder is the same
                raise


async def download(work: Path, package: str, version: str) -> Path:
    """A package's .deb in the folder ``work``, by apt. Raises Unavailable, Failed."""
    try:
        await run(
            ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", f"{package}={version}"],
            cwd=str(work),
            timeout=DOWNLOAD_TIMEOUT,
        )
    except Failed as error:
        raise Unavailable(
            f"the package {package} cannot be fetched",
            details=error.details or error.brief,
            resolution=f"try `apt-get update && apt-get download {package}`",
        ) from error
    found = list(work.glob("*.deb"))
    if len(found) != 1:
        raise Failed("apt-get download left no package", details=package)
    return found[0]


async def _extract(root: Path, target: Path) -> None:
    """Writes the ELF kernel of the unpacked package to ``target``."""
    images = list((root / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise Failed("the kernel's package holds no single vmlinuz")
    packed = bzimage.payload(await asyncio.to_thread(images[0].read_bytes))
    if argv := bzimage.program_for(packed):
        # what follows the stream makes these programs fail after they have written all
        result = await run(argv, input=packed, check=False)
        kernel = result.stdout
        if not kernel:
            raise Failed(f"{argv[0]} cannot unpack the kernel", details=result.error_text)
    else:
        kernel = await asyncio.to_thread(bzimage.unpack, packed)
    await asyncio.to_thread(files.write, target, bzimage.check_elf(kernel), mode=0o644)


def _pick(root: Path, target: Path) -> None:
    """Copies the modules that guests need, unpacked, and the list of their order."""
    available = {
        modules.plain(path.name.split(".ko")[0]): path
        for path in (root / "lib" / "modules").rglob("*.ko*")
    } or {
        modules.plain(path.name.split(".ko")[0]): path
        for path in (root / "usr" / "lib" / "modules").rglob("*.ko*")
    }

    def load(name: str) -> bytes | None:
        path = available.get(name)
        return None if path is None else _unpacked(path)

    picked = modules.in_order(modules.WANTED, load)
    for name, content in picked.items():
        files.write(target / f"{name}.ko", modules.unsigned(content), mode=0o644)
    files.write(target / "modules.list", "".join(f"{name}\n" for name in picked), mode=0o644)


def _unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(raw)
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (lzma.LZMAError, OSError) as error:
        raise Failed(f"the kernel module {path.name} is damaged", details=str(error)) from error
