"""What a build runs in: namespaces of its own, limits, and a place for secrets.

One small shell script in a private mount and process namespace prepares what
buildah then finds: /dev/shm of the size asked for, the build's control group, and
for secrets a tmpfs that nobody else sees. When the engine dies, however, all of
the build dies (``--pdeathsig``, ``--kill-child``), and with it that tmpfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from gemel.errors import GemelError
from gemel.host import cgrouplimits, files
from gemel.host.cgrouplimits import Limits
from gemel.host.cgroups import ROOT
from gemel.image.inputs import Private

_NAMESPACES = (
    "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
    "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip
_DEFAULT_SHM = 64 << 20
_GROUP = "build-"


class Cell(NamedTuple):
    """How to start a build: words before its command, its input, options for secrets."""

    prefix: tuple[str, ...]
    stdin: int | None
    options: tuple[str, ...]


@contextlib.asynccontextmanager
async def opened(
    group: str, work: Path, storage: Path, driver: str, limits: Limits, shm: int, private: Private
) -> AsyncIterator[Cell]:
    """A cell for one build; what it took is given back at the end, however that comes.

    group: the engine's control group. work: the build's own folder. storage: buildah's.
    Raises Failed for limits that this machine cannot hold.
    """
    name = f"{group}/{_GROUP}{os.urandom(6).hex()}"
    groups = await asyncio.to_thread(cgrouplimits.make, name, limits) if limits.any() else []
    stdin = None
    try:
        script = ["set -e", *_entered(groups)]
        script.append(
            f"[ ! -d /dev/shm ] || mount -t tmpfs -o mode=1777,nosuid,nodev,size="
            f"{shm or _DEFAULT_SHM} shm /dev/shm"
        )
        options: list[str] = []
        if private:
            stdin = private.archive()
            here = files.folder(work / "private")
            containers = files.folder(storage / f"{driver}-containers")
            script += [_tmpfs(here), f"tar -x -C {_quoted(here)}"]
            # buildah copies secrets into the folder of its working container
            script.append(_tmpfs(containers))
            for option, id, file in private.names():
                value = (
                    f"id={id},src={here / file}" if option == "--secret" else f"{id}={here / file}"
                )
                options += [option, value]
            script.append(_marked(_mark(storage, work.name)))
        else:
            script.append('exec "$@" </dev/null')
        prefix = (*_NAMESPACES, "sh", "-c", "\n".join(script), "gemel-build")
        yield Cell(prefix, stdin, tuple(options))
    finally:
        if stdin is not None:
            os.close(stdin)
        if groups:
            with contextlib.suppress(GemelError):
                await asyncio.to_thread(cgrouplimits.remove, name)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _tmpfs(path: Path) -> str:
    return f"mount -t tmpfs -o mode=0700,nosuid,nodev gemel {_quoted(path)}"


def _entered(groups: list[tuple[Path, Path]]) -> list[str]:
    """Commands that enter the control group, and show its figures as the machine's."""
    made = [f"echo 0 > {_quoted(folder / 'cgroup.procs')}" for folder, _ in groups]
    return made + [f"mount --bind {_quoted(folder)} {_quoted(top)}" for folder, top in groups]


def _marks(storage: Path) -> Path:
    return storage.parent / "buildah-unfinished"


def _mark(storage: Path, name: str) -> Path:
    """A file that is there while a build with secrets goes on: buildah keeps no list of it."""
    mark = files.folder(_marks(storage)) / name
    files.write(mark, b"")
    return mark


def _marked(mark: Path) -> str:
    """Runs buildah; the mark goes if buildah came to its end and so has tidied up."""
    return (
        'set +e; "$@" </dev/null; status=$?\n'
        f"[ $status -ge 128 ] || rm -f {_quoted(mark)}; exit $status"
    )


def was_killed(storage: Path) -> bool:
    """Whether a build with secrets was killed: its layer is in the storage, unknown to anybody."""
    try:
        return bool(os.listdir(_marks(storage)))
    except FileNotFoundError:
        return False


def forget_killed(storage: Path) -> None:
    """After the storage was removed."""
    files.remove(_marks(storage))


def tidy(group: str, root: Path = ROOT) -> None:
    """Removes control groups of builds that went down with an engine. Never raises."""
    for folder in [*root.glob(f"*/{group}/{_GROUP}*"), *root.glob(f"{group}/{_GROUP}*")]:
        with contextlib.suppress(OSError):
            folder.rmdir()
