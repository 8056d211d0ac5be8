"""Named volumes: folders that outlive containers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gemel.engine import filters, mountspecs
from gemel.engine.core import Core
from gemel.engine.facade import Filters, Json
from gemel.engine.records import Container, Volume, now
from gemel.errors import Conflict, InvalidInput, NotFound, Unsupported
from gemel.host import copying, files
from gemel.model.docker import VolumeCreate

__all__ = ["Volume", "Volumes", "delete", "fill", "make"]


async def make(
    core: Core,
    name: str,
    *,
    labels: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    anonymous: bool = False,
) -> Volume:
    """Makes a volume. Raises InvalidInput, Unsupported."""
    path = core.paths.volumes / name / "_data"
    options = options or {}
    block = options == {"type": "block"}
    if options and not block:
        path = _bound(options)
    else:
        await asyncio.to_thread(_make_folder, path)
    all_labels = dict(labels or {})
    if anonymous:
        all_labels.setdefault("com.docker.volume.anonymous", "")
    volume = Volume(
        name=name,
        created=now(),
        labels=all_labels,
        options=options,
        anonymous=anonymous,
        path=str(path),
        filled=bool(options) and not block,
    )
    core.volumes[name] = volume
    await core.store.put("volume", name, volume)
    core.events.emit("volume", "create", name, {"driver": "local"})
    return volume


def _make_folder(path: Path) -> None:
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.mkdir(mode=0o755, exist_ok=True)


def _bound(options: dict[str, str]) -> Path:
    """The folder of a volume made with ``type=none, o=bind, device=/folder``."""
    flags = options.get("o", "").split(",")
    if options.get("type", "none") not in ("none", "bind") or "bind" not in flags:
        raise Unsupported(
            "of the local driver's options gemel carries out type=none, o=bind, device=FOLDER"
            " and, alone, type=block",
            details=str(options),
        )
    path = Path(options.get("device", ""))
    if not path.is_absolute() or not path.is_dir():
        raise InvalidInput(f"the volume's device {str(path)!r} is no folder of the host")
    return path


async def delete(core: Core, volume: Volume) -> None:
    """Removes a volume and, unless it is a bound folder, its content."""
    core.volumes.pop(volume.name, None)
    await core.store.delete("volume", [volume.name])
    if not volume.options or volume.block:
        await asyncio.to_thread(files.remove, core.paths.volumes / volume.name)
    core.events.emit("volume", "destroy", volume.name, {"driver": "local"})


async def fill(core: Core, one: Container) -> None:
    """Copies what the image has at a mount's target into a new volume (as Docker does)."""
    for point in one.mounts:
        if point.kind != "volume" or point.nocopy or point.subpath:
            continue
        volume = core.volumes[point.name]
        if volume.filled:
            continue
        if not any(os.scandir(volume.path)):
            rootfs = await core.images.rootfs(core.images.find(one.image_id))
            await copying.tree(rootfs, point.target, Path(volume.path))
        volume.filled = True
        await core.store.put("volume", volume.name, volume)


def shown(volume: Volume) -> Json:
    """A volume as the API shows it."""
    return {
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.path,
        "CreatedAt": volume.created,
        "Labels": volume.labels or None,
        "Options": volume.options or None,
        "Scope": "local",
    }


class Volumes:
    """See facade.Volumes."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def _users(self, name: str) -> list[Container]:
        return [c for c in self.core.containers.values() if any(m.name == name for m in c.mounts)]

    async def list(self, wanted: Filters) -> Json:
        """GET /volumes."""
        filters.known(wanted, {"name", "label", "dangling", "driver"})
        result = []
        for volume in sorted(self.core.volumes.values(), key=lambda v: v.name):
            if "name" in wanted and not filters.name([volume.name], wanted["name"]):
                continue
            if not filters.labels(volume.labels, wanted.get("label", [])):
                continue
            if "driver" in wanted and "local" not in wanted["driver"]:
                continue
            if "dangling" in wanted:
                dangling = wanted["dangling"][0].lower() in ("true", "1")
                if dangling == bool(self._users(volume.name)):
                    continue
            result.append(shown(volume))
        return {"Volumes": result, "Warnings": None}

    async def inspect(self, ref: str) -> Json:
        """GET /volumes/NAME."""
        return shown(self.core.volume(ref))

    async def create(self, request: VolumeCreate) -> Json:
        """POST /volumes/create. An existing one of the same kind is given back, as in Docker."""
        import secrets

        if request.driver not in ("", "local"):
            raise NotFound(
                f"create {request.name}: error looking up volume plugin {request.driver}: "
                f'plugin "{request.driver}" not found',
                resolution="gemel has the driver local",
            )
        name = mountspecs.volume_name(request.name) if request.name else secrets.token_hex(32)
        known = self.core.volumes.get(name)
        if known is not None:
            if (request.driver_opts or {}) != known.options:
                raise Conflict(f"volume {name} exists with other options")
            return shown(known)
        made = await make(
            self.core,
            name,
            labels=request.labels,
            options=request.driver_opts,
            anonymous=not request.name,
        )
        return shown(made)

    async def remove(self, ref: str, force: bool) -> None:
        """DELETE /volumes/NAME. Raises Conflict while a container has it."""
        if force and ref not in self.core.volumes:
            return
        volume = self.core.volume(ref)
        users = self._users(ref)
        if users:
            ids = ", ".join(c.id for c in users)
            raise Conflict(f"remove {ref}: volume is in use - [{ids}]")
        await delete(self.core, volume)

    async def prune(self, wanted: Filters) -> Json:
        """POST /volumes/prune: anonymous ones that no container has; all with all=true."""
        filters.known(wanted, {"label", "label!", "all"})
        every = any(v.lower() in ("true", "1") for v in wanted.get("all", []))
        removed = []
        for volume in list(self.core.volumes.values()):
            if self._users(volume.name) or not (every or volume.anonymous):
                continue
            if not filters.labels(volume.labels, wanted.get("label", [])):
                continue
            if any(filters.labels(volume.labels, [w]) for w in wanted.get("label!", [])):
                continue
            await delete(self.core, volume)
            removed.append(volume.name)
        return {"VolumesDeleted": removed, "SpaceReclaimed": 0}
