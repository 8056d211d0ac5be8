"""Network and mount namespaces: what the benchmarks do is never seen by the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from gemel.host import mountns, mounts, namespaces

_NEWNS = 0x00020000
_NEWNET = 0x40000000


def enter() -> None:
    """Moves this process into a network namespace (``lo`` up) and a mount namespace of its own.

    The unified cgroup hierarchy of a hybrid host is covered, as crun wants it. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNS | _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: the benchmarks have to run as root")
    mounts.mount("none", "/", flags=mounts.Flag.REC | mounts.Flag.PRIVATE)
    mountns.hide_unified()
    namespaces.loopback_up()


@contextlib.contextmanager
def memory_folder(path: Path) -> Iterator[Path]:
    """A file system in memory for what runs, as /run is: every engine gets one."""
    path.mkdir(parents=True, exist_ok=True)
    mounts.mount("none", path, "tmpfs", mounts.Flag.NOSUID | mounts.Flag.NODEV, "size=256m")
    try:
        yield path
    finally:
        mounts.unmount(path)


def remove_cgroup(name: str) -> None:
    """Takes a control group away, with its children, in every hierarchy. Never raises."""
    top = Path("/sys/fs/cgroup")
    for folder in [top / name, *(one / name for one in top.iterdir())]:
        if not folder.is_dir():
            continue
        for inner, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(inner)
