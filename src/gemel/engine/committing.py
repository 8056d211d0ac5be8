"""docker diff and docker commit: from what an instance changed to a list, and to an image."""

from __future__ import annotations

import asyncio
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

import msgspec

from gemel.engine.core import Core
from gemel.engine.facade import CommitRequest, Json, Jsons
from gemel.engine.records import Container
from gemel.errors import InvalidInput
from gemel.host import rooted
from gemel.image.store import LayerOf
from gemel.model.docker import ContainerConfig
from gemel.model.instance import InstanceSpec
from gemel.runtime.container.bundle import INIT_TARGET

CHANGED, ADDED, DELETED = 0, 1, 2
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"

#: What is mounted into every container; an image that lacks one gets an empty file to mount on.
OWN_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", INIT_TARGET)

#: What of a container's configuration an image has.
_KEPT = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
    "StopSignal", "Healthcheck", "Shell", "OnBuild",
)  # fmt: skip


async def changes(layer: AsyncIterator[bytes], spec: InstanceSpec) -> Jsons:
    """The paths that a layer changes in its image's root, sorted."""
    with tempfile.TemporaryFile(dir=spec.layer.parent) as file:
        async for piece in layer:
            file.write(piece)
        file.seek(0)
        assert spec.rootfs is not None
        return await asyncio.to_thread(_listed, file, spec.rootfs)


def _listed(file: IO[bytes], lower: Path) -> Jsons:
    found: dict[str, int] = {}
    own = {target.lstrip("/") for target in OWN_FILES}
    stands: set[str] = set()
    with rooted.root(lower) as root, tarfile.open(fileobj=file, mode="r:") as tar:
        for entry in tar:
            above, _, name = entry.name.rpartition("/")
            if name == _OPAQUE:
                continue
            if entry.name in own and entry.isfile() and not entry.size:
                stands.update(_folders(entry.name))
                continue  # what gemel's own mounts stand on is nobody's change
            if name.startswith(_WHITEOUT):
                found[f"{above}/{name[len(_WHITEOUT) :]}".lstrip("/")] = DELETED
            else:
                found[entry.name] = CHANGED if _exists(root, entry.name) else ADDED
            for folder in _folders(entry.name):  # a folder changes with what is in it
                found.setdefault(folder, CHANGED)
    for folder in sorted(stands, reverse=True):
        if not any(path.startswith(f"{folder}/") for path in found):
            found.pop(folder, None)
    return [{"Path": f"/{path}", "Kind": kind} for path, kind in sorted(found.items())]


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _exists(root: int, path: str) -> bool:
    try:
        os.close(rooted.open_in(root, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


async def commit(
    core: Core, one: Container, layer: AsyncIterator[bytes], wanted: CommitRequest
) -> str:
    """Makes an image of a container's image and its changes; the id. Raises InvalidInput."""
    base = core.images.find(one.image_id)
    try:
        image = await core.images.commit(
            base,
            LayerOf(
                tar=layer,
                config=merged(_config(one, base.config.on_build), wanted.config),
                repo=wanted.repo,
                tag=wanted.tag,
                comment=wanted.comment,
                author=wanted.author,
                created_by=" ".join(one.argv),
                changes=wanted.changes,
            ),
        )
    except msgspec.ValidationError as error:
        raise InvalidInput("the configuration is not as expected", str(error)) from error
    return image.id


def _config(one: Container, on_build: list[str] | None) -> Json:
    shown: Json = msgspec.to_builtins(one.request)
    kept = {key: shown[key] for key in _KEPT if shown.get(key)}
    kept["Env"] = [item for item in kept.get("Env") or [] if "=" in item]
    return kept | ({"OnBuild": on_build} if on_build else {})


def merged(config: Json, given: Json) -> Json:
    """The configuration with what a request says otherwise. Raises msgspec.ValidationError.

    As dockerd: single values are replaced, variables, labels, ports and volumes are added.
    """
    checked = msgspec.convert({k: v for k, v in given.items() if v is not None}, ContainerConfig)
    new: dict[str, Any] = msgspec.to_builtins(checked)
    result = dict(config)
    for key in _KEPT:
        value = new.get(key)
        if not value:
            continue
        if isinstance(value, dict) and key in ("Labels", "ExposedPorts", "Volumes"):
            result[key] = {**(config.get(key) or {}), **value}
        elif key == "Env":
            names = {item.partition("=")[0] for item in value}
            old = [e for e in config.get("Env") or [] if e.partition("=")[0] not in names]
            result[key] = [*old, *value]
        else:
            result[key] = (
                [value] if key in ("Cmd", "Entrypoint") and isinstance(value, str) else value
            )
    return result
