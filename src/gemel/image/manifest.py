"""Manifests and configs: reading both families (OCI, Docker schema 2) and making our own. Pure."""

from __future__ import annotations

import datetime
import platform as machine
from collections.abc import Sequence
from typing import Any

import msgspec

from gemel.errors import InvalidInput, NotFound, Unsupported
from gemel.image.blobs import check
from gemel.image.index import ConfigFile

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_ARCHITECTURES = {
    "386", "amd64", "x86_64", "arm", "arm64", "aarch64", "loong64", "mips64le", "ppc64le",
    "riscv64", "s390x",
}  # fmt: skip
_MAX_LAYERS = 512


class Platform(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, rename="camel", omit_defaults=True):
    """What points to a blob."""

    media_type: str = ""
    digest: str = ""
    size: int = 0
    annotations: dict[str, str] | None = None
    platform: Platform | None = None


class Manifest(msgspec.Struct, rename="camel", omit_defaults=True):
    """A manifest, or an index of them (then ``manifests`` is filled)."""

    schema_version: int = 0
    media_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None

    @property
    def type(self) -> str:
        """Media type; OCI lets it be left out."""
        return self.media_type or (OCI_INDEX if self.manifests is not None else OCI)


def read(raw: bytes) -> Manifest:
    """Raises InvalidInput for what is no manifest, Unsupported for schema 1 and artifacts."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise InvalidInput("an image's manifest is damaged", details=str(error)) from error
    if manifest.schema_version != 2:
        raise Unsupported(
            f"manifests of schema version {manifest.schema_version} are not supported",
            resolution="push the image anew with a current tool",
        )
    if manifest.manifests is not None:
        return manifest
    if manifest.config is None or manifest.layers is None:
        raise InvalidInput("an image's manifest names no config or no layers")
    if len(manifest.layers) > _MAX_LAYERS:
        raise InvalidInput(f"an image has more than {_MAX_LAYERS} layers")
    for descriptor in (manifest.config, *manifest.layers):
        check(descriptor.digest)
        if not 0 <= descriptor.size < 1 << 50:
            raise InvalidInput("an image's manifest has an impossible size")
    return manifest


def read_config(raw: bytes) -> ConfigFile:
    """Raises InvalidInput."""
    try:
        config = msgspec.json.decode(raw, type=ConfigFile)
    except msgspec.MsgspecError as error:
        raise InvalidInput("an image's config is damaged", details=str(error)) from error
    for diff_id in config.rootfs.diff_ids:
        check(diff_id)
    return config


def own_platform() -> Platform:
    """This machine's."""
    return Platform(_MACHINES.get(machine.machine(), machine.machine()), "linux")


def parse_platform(text: str) -> Platform:
    """``linux/arm64/v8``, ``arm64``; empty: this machine's. Raises InvalidInput."""
    if not text:
        return own_platform()
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(part.replace("_", "").isalnum() for part in parts):
        raise InvalidInput(
            f"{text!r} is no platform", resolution="write OS/ARCHITECTURE[/VARIANT], linux/amd64"
        )
    if len(parts) == 1:
        if parts[0] == "linux":
            return own_platform()
        if parts[0] not in _ARCHITECTURES:
            raise InvalidInput(
                f'"{text}": unknown operating system or architecture: invalid argument',
                resolution="write OS/ARCHITECTURE[/VARIANT], linux/amd64",
            )
        parts = ["linux", parts[0]]
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(parts[1], parts[1])
    return Platform(architecture, parts[0], parts[2] if len(parts) == 3 else "")


def choose(index: Manifest, wanted: Platform) -> Descriptor:
    """The entry for a platform. Raises NotFound with Docker's words."""
    for entry in index.manifests or []:
        has = entry.platform
        if has is None or (
            has.os == wanted.os
            and has.architecture == wanted.architecture
            and wanted.variant in ("", has.variant)
        ):
            check(entry.digest)
            return entry
    text = "/".join(filter(None, (wanted.os, wanted.architecture, wanted.variant)))
    offered = sorted(
        {f"{e.platform.os}/{e.platform.architecture}" for e in index.manifests or [] if e.platform}
    )
    raise NotFound(
        f"no matching manifest for {text} in the manifest list entries",
        details=f"there is: {', '.join(offered)}" if offered else "",
        resolution="choose another tag, or --platform",
    )


def now() -> str:
    """The time, RFC 3339, as configs have it."""
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def compose(config: bytes, config_digest: str, layers: Sequence[tuple[str, int]]) -> bytes:
    """A Docker schema 2 manifest for layers that are stored uncompressed (digest, bytes)."""
    return msgspec.json.encode(
        Manifest(
            schema_version=2,
            media_type=DOCKER,
            config=Descriptor(DOCKER_CONFIG, config_digest, len(config)),
            layers=[Descriptor(DOCKER_LAYER, digest, size) for digest, size in layers],
        )
    )


def new_config(
    *, diff_id: str, config: dict[str, Any], created: str, comment: str, created_by: str
) -> bytes:
    """The config of an image with one layer."""
    line: dict[str, Any] = {"created": created}
    line |= {"created_by": created_by} if created_by else {}
    line |= {"comment": comment} if comment else {}
    return msgspec.json.encode(
        {
            "architecture": own_platform().architecture,
            "os": "linux",
            "created": created,
            "comment": comment,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [line],
        },
        order="deterministic",
    )


def extended(manifest: bytes, config: tuple[str, int], layer: tuple[str, int]) -> bytes:
    """A manifest with another config and one layer more, uncompressed (digest, bytes)."""
    parsed = read(manifest)
    oci = parsed.type == OCI
    kinds = (OCI_CONFIG, OCI_LAYER) if oci else (DOCKER_CONFIG, DOCKER_LAYER)
    return msgspec.json.encode(
        Manifest(
            schema_version=2,
            media_type=parsed.type,
            config=Descriptor(kinds[0], *config),
            layers=[*(parsed.layers or []), Descriptor(kinds[1], *layer)],
        )
    )


def extended_config(
    raw: bytes, *, diff_id: str, config: dict[str, Any], author: str, line: dict[str, str]
) -> bytes:
    """An image's config with one layer more and its line of history. Raises InvalidInput."""
    read_config(raw)
    old: dict[str, Any] = msgspec.json.decode(raw)
    rootfs = old.get("rootfs") or {}
    diff_ids = [*(rootfs.get("diff_ids") or []), diff_id]
    for stale in ("container", "container_config", "parent", "id"):
        old.pop(stale, None)
    new = {
        **old,
        "created": line["created"],
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*(old.get("history") or []), {k: v for k, v in line.items() if v}],
    }
    new["comment"] = line["comment"]
    if author:
        new["author"] = author
    return msgspec.json.encode(new, order="deterministic")
