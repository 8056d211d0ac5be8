"""What a service mounts: volumes, configs and secrets as the engine takes them."""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gemel.compose.project import Project, Service
from gemel.model.docker import MountSpec

Json = dict[str, Any]


class PlacedFile(msgspec.Struct, frozen=True):
    """A file that the caller writes before the container is made, which binds it."""

    path: str
    content: bytes
    mode: int = 0o444
    uid: int = 0
    gid: int = 0


class Inherited(msgspec.Struct, frozen=True):
    """An anonymous volume that a container takes over from the one it replaces."""

    target: str
    volume: str


class Mounts:
    """Volumes, configs and secrets of a service as Binds, Mounts and files to place."""

    def __init__(
        self, project: Project, service: Service, folder: str, inherit: Sequence[Inherited]
    ) -> None:
        self.project = project
        self.service = service
        self.folder = folder
        self.inherit = {i.target: i.volume for i in inherit}
        self.binds: list[str] = []
        self.specs: list[MountSpec] = []
        self.anonymous: list[str] = []
        self.files: list[PlacedFile] = []

    def build(self) -> None:
        targets = set()
        for volume in self.service.volumes:
            targets.add(volume["target"])
            self._volume(volume)
        for target, name in self.inherit.items():
            if target not in targets:
                self.binds.append(f"{name}:{target}:rw")
        for kind, use, target in file_uses(self.service):
            self._file(kind, use, target)

    def _volume(self, volume: Json) -> None:
        kind = volume["type"]
        if kind == "bind":
            self._bind(volume)
        elif kind == "volume":
            self._named(volume)
        elif kind == "image":
            sub = (volume.get("image") or {}).get("subpath")
            self.specs.append(
                MountSpec(
                    type="image",
                    source=volume.get("source") or "",
                    target=volume["target"],
                    read_only=True,
                    image_options={"Subpath": sub} if sub else None,
                )
            )
        else:
            tmpfs = volume.get("tmpfs") or {}
            sized = {}
            if tmpfs.get("size"):
                sized["SizeBytes"] = int(tmpfs["size"])
            if tmpfs.get("mode"):
                sized["Mode"] = int(tmpfs["mode"])
            self.specs.append(
                MountSpec(
                    type=kind,
                    source=volume.get("source") or "",
                    target=volume["target"],
                    read_only=bool(volume.get("read_only")),
                    tmpfs_options=sized or None,
                )
            )

    def _bind(self, volume: Json) -> None:
        bind = volume.get("bind") or {}
        if bind.get("create_host_path", True) and not bind.get("recursive"):
            modes = ["ro" if volume.get("read_only") else "rw"]
            modes += [bind[k] for k in ("selinux", "propagation") if bind.get(k)]
            self.binds.append(f"{volume['source']}:{volume['target']}:{','.join(modes)}")
            return
        given: Json = {}
        if bind.get("propagation"):
            given["Propagation"] = bind["propagation"]
        if bind.get("recursive") == "disabled":
            given["NonRecursive"] = True
        self.specs.append(
            MountSpec(
                type="bind",
                source=volume["source"],
                target=volume["target"],
                read_only=bool(volume.get("read_only")),
                bind_options=given or None,
            )
        )

    def _named(self, volume: Json) -> None:
        more = volume.get("volume") or {}
        key = volume.get("source")
        name = self.project.volume_name(key) if key else self.inherit.get(volume["target"], "")
        if name and not more.get("labels") and not more.get("subpath"):
            marks = volume.get("bind") or {}
            modes = ["ro" if volume.get("read_only") else "rw"]
            modes += [marks[k] for k in ("selinux", "propagation") if marks.get(k)]
            modes += ["nocopy"] if more.get("nocopy") else []
            self.binds.append(f"{name}:{volume['target']}:{','.join(modes)}")
            return
        if not name and not more and not volume.get("read_only"):
            self.anonymous.append(volume["target"])
            return
        given: Json = {}
        if more.get("nocopy"):
            given["NoCopy"] = True
        if more.get("labels"):
            given["Labels"] = more["labels"]
        if more.get("subpath"):
            given["Subpath"] = more["subpath"]
        self.specs.append(
            MountSpec(
                type="volume",
                source=name,
                target=volume["target"],
                read_only=bool(volume.get("read_only")),
                volume_options=given or None,
            )
        )

    def _file(self, kind: str, use: Json, target: str) -> None:
        """A config or secret: its own file is bound, other content is placed first."""
        source = _resource(self.project, kind, use).get("file") or ""
        if not source:
            placed = place(self.project, kind, use, self.folder)
            if placed is None:
                return  # external ones are refused by lint before anything starts
            self.files.append(placed)
            source = placed.path
        self.specs.append(MountSpec(type="bind", source=source, target=target, read_only=True))


def _resource(project: Project, kind: str, use: Json) -> Json:
    known = project.configs if kind == "configs" else project.secrets
    return known.get(use["source"]) or {}


def file_uses(service: Service) -> Iterator[tuple[str, Json, str]]:
    """Configs and secrets that a service uses: kind, use, and where it is found."""
    for use in service.config.get("configs") or ():
        yield "configs", use, use.get("target") or f"/{use['source']}"
    for use in service.config.get("secrets") or ():
        target = use.get("target") or use["source"]
        yield "secrets", use, os.path.join("/run/secrets", target)


def place(project: Project, kind: str, use: Json, folder: str) -> PlacedFile | None:
    """The file for a config or secret whose content is in the file or the environment.

    Its name tells its content, owner and mode, so that another content is another
    mount. None for one that has a file of its own, or is external.
    """
    resource = _resource(project, kind, use)
    if resource.get("file") or resource.get("external"):
        return None
    data = (resource.get("content") or "").encode()
    mode = int(str(use["mode"]), 8) if use.get("mode") else 0o444
    uid, gid = _number(use.get("uid")), _number(use.get("gid"))
    mark = hashlib.sha256(data + f"|{mode}|{uid}|{gid}".encode()).hexdigest()[:12]
    path = os.path.join(folder, project.name, kind, f"{use['source']}-{mark}")
    return PlacedFile(path, data, mode, uid, gid)


def changed_file(project: Project, service: Service, mounts: Mapping[str, str]) -> str:
    """The config or secret whose mounted content is not the one of now, or nothing."""
    for kind, use, target in file_uses(service):
        now = place(project, kind, use, "")
        there = mounts.get(target)
        if now is not None and there and os.path.basename(there) != os.path.basename(now.path):
            return f"{kind[:-1]} {use['source']}"
    return ""


def _number(value: Any) -> int:
    text = str(value or 0)
    return int(text) if text.isdigit() else 0
