"""An own small guest kernel, made of the distribution's source: ``gemel kernel build``.

Debian's linux-source package is downloaded and unpacked, never installed, and compiled
with ``guest.config`` over allnoconfig. A kernel is known by its source's version and
its configuration, so it is made once. All happens in one folder, which is gone when the
build ends, is given up, or (should the engine have been killed) when the next one begins.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import msgspec

from gemel.errors import Failed, Unavailable
from gemel.host import files, lock
from gemel.host.run import find, lines, run
from gemel.model.paths import Paths
from gemel.runtime.microvm import bzimage, kernels
from gemel.runtime.microvm.kernel import Progress, download, known_to_apt
from gemel.runtime.microvm.kernels import Kernel

#: program, the Debian package that brings it
PROGRAMS = (
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("dpkg-deb", "dpkg"),
)
#: A header that the kernel's own tools need, and the package that brings it.
HEADER, HEADER_PACKAGE = Path("/usr/include/gelf.h"), "libelf-dev"
#: What the source and its objects take for the time of the build, in bytes.
ROOM = 2_300_000_000
#: Part of a build's key: goes up when something beside the configuration changes.
RECIPE = "1"
UNPACK_TIMEOUT, CONFIGURE_TIMEOUT, COMPILE_TIMEOUT = 1800.0, 600.0, 4 * 3600.0
#: Seconds between two lines of progress.
EVERY = 2.0
#: Lines that make prints for the configuration, about.
STEPS = 2080
#: Of the source: what no guest's kernel is made of, half of it.
LEFT_OUT = (
    "*/drivers/gpu/drm/*.[ch]",
    "*/drivers/net/ethernet/*/*.[ch]",
    "*/Documentation/*.rst",
    "*/tools/testing/*",
)

_SETTING = re.compile(r"(CONFIG_\w+)=(\S.*)")


class Source(msgspec.Struct, frozen=True):
    """A linux-source package. version: the package's, with Debian's revision."""

    package: str
    version: str


def configuration() -> str:
    """The configuration that is kept with gemel."""
    return Path(__file__).with_name("guest.config").read_text()


def settings(text: str) -> dict[str, str]:
    """CONFIG_X → value of a configuration; ``n`` where it says so or "is not set"."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if matched := _SETTING.fullmatch(line.strip()):
            found[matched[1]] = matched[2]
        elif matched := re.fullmatch(r"# (CONFIG_\w+) is not set", line.strip()):
            found[matched[1]] = "n"
    return found


def untrue(wanted: str, result: str) -> list[str]:
    """The wanted settings that a finished configuration does not have, as it has them."""
    have = settings(result)
    return [
        f"{name}={value} (it is {have.get(name, 'n')})"
        for name, value in settings(wanted).items()
        if have.get(name, "n") != value
    ]


def key(source: Source, config: str) -> str:
    """What tells one build from another; comments in the configuration do not count."""
    parts = [RECIPE, source.package, source.version]
    parts += [f"{name}={value}" for name, value in sorted(settings(config).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def folder_for(paths: Paths, source: Source, config: str) -> Path:
    """Where the kernel made of them is, or will be."""
    upstream = re.split("[-~]", source.version.split(":")[-1], maxsplit=1)[0]
    version = f"{source.version}+c{key(source, config)}"
    return kernels.folder_of(paths, f"{kernels.OWN}{upstream}", version)


def check_tools(there: Callable[[str], str | None] = find, header: Path = HEADER) -> None:
    """Raises Unavailable with all that is missing, and the command that brings it."""
    missing = [(program, package) for program, package in PROGRAMS if there(program) is None]
    if not header.exists():
        missing.append((header.name, HEADER_PACKAGE))
    if missing:
        packages = " ".join(dict.fromkeys(package for _, package in missing))
        raise Unavailable(
            "a kernel cannot be built: programs are missing",
            details=", ".join(name for name, _ in missing),
            resolution=f"apt-get install {packages}",
        )


async def candidate(progress: Progress) -> Source:
    """The newest kernel source that apt knows. Raises Unavailable."""
    found = await known_to_apt(_look_up, progress)
    if found is None:
        raise Unavailable(
            "apt knows no package linux-source-VERSION",
            resolution="check this machine's apt sources, then run `apt-get update`",
        )
    return found


async def _look_up() -> Source | None:
    listed = await run(
        ["apt-cache", "search", "--names-only", r"^linux-source-[0-9.]+$"], check=False
    )
    name = newest(listed.stdout.decode("utf-8", "replace"))
    if name is None:
        return None
    shown = await run(["apt-cache", "show", "--no-all-versions", name], check=False)
    version = re.search(rb"^Version: ([A-Za-z0-9.+~:-]+)$", shown.stdout, re.MULTILINE)
    return Source(name, version[1].decode()) if version else None


def newest(listing: str) -> str | None:
    """The package of the highest kernel version in ``apt-cache search``'s output."""
    found = re.findall(r"^(linux-source-(\d+(?:\.\d+)*)) ", listing, re.MULTILINE)
    best = max(found, key=lambda one: [int(n) for n in one[1].split(".")], default=None)
    return best[0] if best else None


async def build(paths: Paths, progress: Progress, jobs: int | None = None) -> Kernel:
    """The own kernel of the newest source, made if it is not there yet; takes minutes.

    jobs: how many compilers run at once, None for one for each CPU. If it is given up,
    nothing is left. Raises Unavailable, Conflict if one is being built, Failed.
    """
    files.folder(paths.kernels, 0o755)
    source = await candidate(progress)
    config = configuration()
    folder = folder_for(paths, source, config)
    if folder.is_dir():
        progress(f"{kernels.kernel_in(folder).name} was built before, of the same source")
        return kernels.kernel_in(folder)
    check_tools()
    _check_room(paths.kernels)
    held = lock.acquire(paths.kernels / ".build.lock", "a build of a kernel")
    try:
        await asyncio.to_thread(_sweep, paths.kernels)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=paths.kernels) as temporary:
            work = Path(temporary)
            made = await _make(work, source, config, progress, jobs or os.cpu_count() or 1)
            made.rename(folder)
    finally:
        held.release()
    return kernels.kernel_in(folder)


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise Unavailable(
            f"building a kernel takes {ROOM / 1e9:.1f} GB for some minutes",
            details=f"{free / 1e9:.1f} GB are free at {folder}",
            resolution="`gemel image prune`, or another --root",
        )


def _sweep(folder: Path) -> None:
    """What a killed engine's build has left; the lock is held, so nobody uses it."""
    for left in folder.glob(".build-*/"):
        files.remove(left)


async def _make(work: Path, source: Source, config: str, progress: Progress, jobs: int) -> Path:
    """Fetches, unpacks, configures, compiles; the kernel's folder, to be moved into place."""
    began = time.monotonic()
    progress(f"fetching {source.package} {source.version}")
    deb = await download(work, source.package, source.version)
    tree = await _unpack(work, deb, progress)
    deb.unlink()
    progress("configuring")
    (work / "guest.config").write_text(config)
    await _configure(tree, work / "guest.config")
    result = (tree / ".config").read_text()
    if wrong := untrue(config, result):
        raise Failed(
            f"{source.package} does not take gemel's configuration",
            details="\n".join(wrong),
            resolution="`gemel kernel use default` keeps the distribution's kernel in use",
        )
    await _compile(tree, progress, jobs)
    made = files.folder(work / "made", 0o755)
    await run(["strip", "-s", "-o", str(made / "vmlinux"), str(tree / "vmlinux")])
    bzimage.check_elf((made / "vmlinux").read_bytes())
    os.chmod(made / "vmlinux", 0o644)
    files.write(made / "config", result, mode=0o644)
    files.folder(made / "modules", 0o755)
    files.write(made / "modules" / "modules.list", "", mode=0o644)
    progress(f"built in {(time.monotonic() - began) / 60:.1f} min")
    return made


def _environment(work: Path) -> Mapping[str, str]:
    """Nothing of the caller's settings, and nothing that names this machine in the kernel."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(work),
        "LC_ALL": "C",
        "KBUILD_BUILD_USER": "gemel",
        "KBUILD_BUILD_HOST": "gemel",
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    }


async def _told(
    output: AsyncGenerator[str, None], progress: Progress, text: Callable[[int], str]
) -> None:
    """Counts a program's lines, and tells how many there were every few seconds."""
    count, told = 0, time.monotonic() - EVERY
    async with aclosing(output):
        async for _ in output:
            count += 1
            if time.monotonic() - told >= EVERY:
                told = time.monotonic()
                progress(text(count))


async def _unpack(work: Path, deb: Path, progress: Progress) -> Path:
    """The source tree out of the archive in the package. Raises Failed."""
    left_out = " ".join(f"--exclude='{pattern}'" for pattern in LEFT_OUT)
    script = (
        'dpkg-deb --fsys-tarfile "$1" '
        "| tar -xO --wildcards './usr/src/linux-source-*.tar.xz' "
        f'| tar -xJv {left_out} -C "$2"'
    )
    target = files.folder(work / "tree")
    await _told(
        lines(
            ["nice", "-n", "10", "sh", "-c", script, "unpack", str(deb), str(target)],
            timeout=UNPACK_TIMEOUT,
            new_session=True,
        ),
        progress,
        lambda count: f"unpacking: {count} files",
    )
    found = list(target.iterdir())
    if len(found) != 1:
        raise Failed("the package holds no kernel source")
    return found[0]


async def _configure(tree: Path, config: Path) -> None:
    await run(
        ["make", "-s", f"KCONFIG_ALLCONFIG={config}", "allnoconfig"],
        cwd=str(tree),
        env=_environment(tree),
        timeout=CONFIGURE_TIMEOUT,
        new_session=True,
    )


async def _compile(tree: Path, progress: Progress, jobs: int) -> None:
    """vmlinux, with the least of priorities: it takes minutes on all CPUs."""
    await _told(
        lines(
            ["nice", "-n", "15", "make", f"-j{jobs}", "LOCALVERSION=-gemel", "vmlinux"],
            timeout=COMPILE_TIMEOUT,
            cwd=str(tree),
            env=_environment(tree),
            new_session=True,
        ),
        progress,
        lambda count: f"compiling: {count} of about {STEPS} steps",
    )
