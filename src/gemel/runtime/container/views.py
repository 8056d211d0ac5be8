"""The root file system of a container as a folder of the host: of a running one, or mounted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from gemel.host import mounts, rooted
from gemel.model.instance import InstanceSpec, MountKind
from gemel.model.paths import Paths
from gemel.runtime.container import roots


@contextlib.asynccontextmanager
async def of_process(pid: int) -> AsyncIterator[Path]:
    """The root of a running container, with everything mounted in it."""
    yield Path(f"/proc/{pid}/root")


class Views:
    """Mounts of containers that do not run, shared by those who look at the same time."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = asyncio.Lock()
        self._open: dict[str, tuple[Path, int]] = {}

    def sweep(self) -> None:
        """Takes away what an engine left that died while it looked."""
        folder = self._paths.run / "views"
        for place in list(folder.iterdir()) if folder.is_dir() else []:
            _unmount_view(place)

    @contextlib.asynccontextmanager
    async def open(self, spec: InstanceSpec) -> AsyncIterator[Path]:
        """The root with the volumes, mounted for as long as the block runs."""
        async with self._lock:
            place, users = self._open.get(spec.id, (None, 0))
            if place is None:
                place = self._paths.run / "views" / secrets.token_hex(8)
                await asyncio.to_thread(_mount_view, spec, place)
            self._open[spec.id] = (place, users + 1)
        try:
            yield place
        finally:
            await asyncio.shield(self._release(spec.id))

    async def _release(self, id: str) -> None:
        async with self._lock:
            place, users = self._open[id]
            if users > 1:
                self._open[id] = (place, users - 1)
                return
            del self._open[id]
            await asyncio.to_thread(_unmount_view, place)


def _mount_view(spec: InstanceSpec, place: Path) -> None:
    roots.mount(spec, place)
    try:
        with rooted.root(place) as root:
            for mount in sorted(spec.mounts, key=lambda mount: mount.target.count("/")):
                if mount.kind is MountKind.BIND and mount.source is not None:
                    _bind(root, mount.source, mount.target, mount.readonly)
    except BaseException:
        _unmount_view(place)
        raise


def _bind(root: int, source: Path, target: str, readonly: bool) -> None:
    """Mounts a volume in the view; a target that the image lacks is left out."""
    try:
        fd = rooted.open_in(root, target, os.O_PATH)
    except OSError:
        if not source.is_dir():
            return
        rooted.make_folders(root, target)
        fd = rooted.open_in(root, target, os.O_PATH)
    try:
        mounts.bind(source, f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    if readonly:
        fd = rooted.open_in(root, target, os.O_PATH)
        try:
            mounts.mount(
                "none",
                f"/proc/self/fd/{fd}",
                flags=mounts.Flag.BIND | mounts.Flag.REMOUNT | mounts.Flag.RDONLY,
            )
        finally:
            os.close(fd)


def _unmount_view(place: Path) -> None:
    mounts.unmount(place)
    with contextlib.suppress(OSError):
        place.rmdir()
    with contextlib.suppress(OSError):
        place.parent.rmdir()
