"""Compose files as an OCI artifact, in the layout of Docker Compose. Pure.

A manifest names each file as a layer: Compose files, which together are one ``compose.yaml``
of several documents; those that services extend from; env files. All lie in one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gemel.errors import InvalidInput

SCHEME = "oci://"
PROJECT = "application/vnd.docker.compose.project"
FILE = "application/vnd.docker.compose.file+yaml"
ENV_FILE = "application/vnd.docker.compose.envfile"
OLD_CONFIG = "application/vnd.docker.compose.config.empty.v1+json"
"""Type of the config where OCI 1.0 knows no types of artifacts."""
KINDS = (PROJECT, OLD_CONFIG)
MAIN = "compose.yaml"
VERSIONS = ("1.1", "1.0")
"""Of the OCI image specification; the first is tried first."""
LARGEST = 4 << 20
"""Bytes of all files together."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_ABOUT = "com.docker.compose."
_SEPARATOR = b"\n---\n"
_LONGEST_NAME = 200


class Layer(msgspec.Struct, frozen=True):
    """One file. kind: its media type. extends: services extend from it, by its name."""

    kind: str
    name: str
    data: bytes
    extends: bool = False


class Packed(msgspec.Struct, frozen=True):
    """An artifact ready to be sent. blobs: all that the manifest names."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """By which it can be named, ``sha256:…``."""
        return digest_of(self.manifest)


class _Descriptor(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = 0
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct, rename="camel"):
    artifact_type: str = ""
    config: _Descriptor = msgspec.field(default_factory=_Descriptor)
    layers: list[_Descriptor] = []


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(layers: Sequence[Layer], *, version: str, created: str, by: str) -> Packed:
    """The artifact of these files.

    version: of VERSIONS. created: time, RFC 3339. by: Compose's version for the annotations.
    Raises InvalidInput if they are larger than a reader would take.
    """
    if version not in VERSIONS:
        raise InvalidInput(
            f"unsupported OCI version: {version}", resolution=f"known are {', '.join(VERSIONS)}"
        )
    if sum(len(layer.data) for layer in layers) > LARGEST:
        raise InvalidInput(f"the files are larger than {LARGEST >> 20} MiB together")
    empty = b"{}"
    config = {
        "mediaType": _EMPTY if version == "1.1" else OLD_CONFIG,
        "digest": digest_of(empty),
        "size": len(empty),
        "data": "e30=",
    }
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": _MANIFEST}
    if version == "1.1":
        manifest["artifactType"] = PROJECT
    manifest["config"] = config
    manifest["layers"] = [_described(layer, by) for layer in layers]
    manifest["annotations"] = {"org.opencontainers.image.created": created}
    data = json.dumps(manifest, separators=(",", ":")).encode()
    return Packed(data, tuple(dict.fromkeys((empty, *(layer.data for layer in layers)))))


def _described(layer: Layer, by: str) -> dict[str, Any]:
    about = "envfile" if layer.kind == ENV_FILE else "file"
    annotations = {f"{_ABOUT}{about}": layer.name, f"{_ABOUT}version": by}
    if layer.extends:
        annotations[f"{_ABOUT}extends"] = "true"
    return {
        "mediaType": layer.kind,
        "digest": digest_of(layer.data),
        "size": len(layer.data),
        "annotations": annotations,
    }


def verify(digest: str, manifest: bytes, index: bytes, blobs: Mapping[str, bytes]) -> None:
    """Raises InvalidInput if anything is not what ``digest`` stands for."""
    top = index or manifest
    if digest_of(top) != digest:
        raise InvalidInput(f"what was kept is not {digest}")
    if index and digest_of(manifest).encode() not in index:
        raise InvalidInput(f"{digest} does not name the manifest that was kept")
    for name, data in blobs.items():
        if digest_of(data) != name:
            raise InvalidInput(f"what was kept is not {name}")


def unpack(manifest: bytes, blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an artifact by their names: all in one folder, ``compose.yaml`` among them.

    Raises InvalidInput for what is no Compose project or would write anywhere else.
    """
    try:
        found = msgspec.json.decode(manifest, type=_Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput("the artifact's manifest is damaged", details=str(error)) from error
    if found.artifact_type or found.config.media_type != OLD_CONFIG:
        kind = found.artifact_type or found.config.media_type
        if kind != PROJECT:
            raise InvalidInput("it is not a Compose project", details=f"but {kind[:200]}")
    files: dict[str, bytes] = {}
    composed: set[str] = set()
    for layer in found.layers:
        if layer.media_type not in (FILE, ENV_FILE):
            continue  # as readers of OCI do with what they do not know
        if layer.digest not in blobs:
            raise InvalidInput(f"the layer {layer.digest[:80]} is missing")
        _place(layer, blobs[layer.digest], files, composed)
    if MAIN not in composed:
        raise InvalidInput("it holds no Compose file")
    return files


def _place(layer: _Descriptor, data: bytes, files: dict[str, bytes], composed: set[str]) -> None:
    """Adds a layer's file; several Compose files of one name are documents of one file."""
    about = layer.annotations
    if layer.media_type == ENV_FILE:
        name = _safe(about.get(f"{_ABOUT}envfile", ""))
        if files.get(name, data) != data:
            raise InvalidInput(f"two of its files have the name {name}")
        files[name] = data
        return
    name = MAIN
    if f"{_ABOUT}extends" in about:
        name = _safe(about.get(f"{_ABOUT}file", ""))
    if name in files and name not in composed:
        raise InvalidInput(f"two of its files have the name {name}")
    composed.add(name)
    files[name] = files[name] + _SEPARATOR + data if name in files else data


def _safe(name: str) -> str:
    """The name of a file in the folder itself. Raises InvalidInput for any other."""
    bad = not name or name in (".", "..") or len(name.encode("utf-8", "replace")) > _LONGEST_NAME
    if bad or any(letter in "/\\" or ord(letter) < 32 or letter == "\x7f" for letter in name):
        raise InvalidInput(
            "it names a file that would lie outside of its folder", details=repr(name[:100])
        )
    return name


def reference_of(text: str) -> str:
    """``oci://NAME[:TAG][@DIGEST]`` without the scheme. Raises InvalidInput."""
    name = text.removeprefix(SCHEME)
    if not name or any(letter.isspace() for letter in name) or "://" in name:
        raise InvalidInput(
            f"{text[:200]!r} names no artifact",
            resolution="write oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
        )
    return name


def digest_in(reference: str) -> str:
    """The digest that a reference names; "" if it names a tag."""
    digest = reference.partition("@")[2]
    hexadecimal = digest.removeprefix("sha256:")
    known = len(hexadecimal) == 64 and all(c in "0123456789abcdef" for c in hexadecimal)
    return digest if digest.startswith("sha256:") and known else ""
