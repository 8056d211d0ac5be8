"""Mounts of a create request: binds, volumes, tmpfs, images. Pure; see ``resolve``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gemel.engine.records import MountPoint
from gemel.errors import InvalidInput, Unsupported
from gemel.model.docker import CreateRequest, HostConfig, MountSpec

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


def volume_name(name: str) -> str:
    """A volume's name, checked. Raises InvalidInput in Docker's words."""
    if not _VOLUME_NAME.match(name) or len(name) > 255:
        raise InvalidInput(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
            "directory, use absolute path"
        )
    return name


def _absolute(target: str) -> str:
    if not target.startswith("/"):
        raise InvalidInput(f"invalid mount path: '{target}' mount path must be absolute")
    parts: list[str] = []
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise InvalidInput("invalid specification: destination can't be '/'")
    return "/" + "/".join(parts)


def bind(text: str) -> MountPoint:
    """One of HostConfig.Binds: ``source:target[:options]``. Raises InvalidInput."""
    parts = text.split(":")
    if len(parts) == 1:
        return MountPoint(kind="volume", target=_absolute(parts[0]), anonymous=True)
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidInput(f"invalid volume specification: '{text}'")
    source, target = parts[0], _absolute(parts[1])
    options = parts[2].split(",") if len(parts) == 3 else []
    readonly = "ro" in options
    for option in options:
        if option not in (
            "ro", "rw", "z", "Z", "nocopy", "rprivate", "private", "rslave", "slave", "rshared",
            "shared", "cached", "delegated", "consistent", "",
        ):  # fmt: skip
            raise InvalidInput(f"invalid mode: {parts[2]}", details=f"in '{text}'")
    if source.startswith("/"):
        return MountPoint(
            kind="bind", source=source, target=target, readonly=readonly, create_source=True
        )
    return MountPoint(
        kind="volume",
        name=volume_name(source),
        target=target,
        readonly=readonly,
        nocopy="nocopy" in options,
    )


def mount(spec: MountSpec) -> MountPoint:
    """One of HostConfig.Mounts. Raises InvalidInput, Unsupported."""
    target = _absolute(spec.target)
    if spec.type == "bind":
        if not spec.source.startswith("/"):
            raise InvalidInput(
                f"invalid mount config for type \"bind\": invalid mount path: '{spec.source}' "
                "mount path must be absolute"
            )
        options = spec.bind_options or {}
        return MountPoint(
            kind="bind",
            source=spec.source,
            target=target,
            readonly=spec.read_only,
            create_source=bool(options.get("CreateMountpoint")),
        )
    if spec.type == "volume":
        options = spec.volume_options or {}
        return MountPoint(
            kind="volume",
            name=volume_name(spec.source) if spec.source else "",
            anonymous=not spec.source,
            target=target,
            readonly=spec.read_only,
            nocopy=bool(options.get("NoCopy")),
            subpath=str(options.get("Subpath") or ""),
        )
    if spec.type == "tmpfs":
        options = spec.tmpfs_options or {}
        return MountPoint(
            kind="tmpfs",
            target=target,
            readonly=spec.read_only,
            size=options.get("SizeBytes") or None,
            mode=options.get("Mode"),
        )
    if spec.type == "image":
        if not spec.source:
            raise InvalidInput(
                'invalid mount config for type "image": field Source must not be empty'
            )
        options = spec.image_options or {}
        subpath = str(options.get("Subpath") or "")
        return MountPoint(
            kind="image", name=spec.source, target=target, readonly=True, subpath=subpath
        )
    raise Unsupported(
        f"mounts of type {spec.type!r} are not supported",
        resolution="known are bind, volume, tmpfs and image",
    )


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def tmpfs(target: str, text: str) -> MountPoint:
    """One of HostConfig.Tmpfs: ``size=64m,mode=1777``. Raises InvalidInput."""
    point = MountPoint(kind="tmpfs", target=_absolute(target))
    for option in filter(None, text.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            match = re.match(r"(\d+)([kmgt]?)b?\Z", value.lower())
            if not match:
                raise InvalidInput(f"invalid tmpfs option {option!r} for {target}")
            point.size = int(match[1]) * _UNITS[match[2]]
        elif key == "mode":
            try:
                point.mode = int(value, 8)
            except ValueError:
                raise InvalidInput(f"invalid tmpfs option {option!r} for {target}") from None
        elif key == "ro":
            point.readonly = True
        elif key in ("rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev", "uid", "gid"):
            point.options = [*point.options, option]
        else:
            raise InvalidInput(f"invalid tmpfs option {option!r} for {target}")
    return point


def mounts(request: CreateRequest, from_others: Sequence[MountPoint]) -> list[MountPoint]:
    """All mounts of an effective request, by target; explicit ones win over the image's volumes.

    Raises InvalidInput when two explicit ones have one target.
    """
    host = request.host_config or HostConfig()
    explicit = [bind(text) for text in host.binds or []]
    explicit += [mount(spec) for spec in host.mounts or []]
    explicit += [tmpfs(target, text) for target, text in (host.tmpfs or {}).items()]
    result: dict[str, MountPoint] = {}
    for point in explicit:
        if point.target in result:
            raise InvalidInput(f"Duplicate mount point: {point.target}")
        result[point.target] = point
    for point in from_others:
        result.setdefault(point.target, point)
    for target in request.volumes or {}:
        clean = _absolute(target)
        result.setdefault(clean, MountPoint(kind="volume", target=clean, anonymous=True))
    return sorted(result.values(), key=lambda point: point.target.count("/"))
