"""Small OCI artifacts that are no images: sent to a registry, and fetched whole.

What they mean is their readers' affair. A registry is not trusted: everything is bounded
before it is fetched, and is what its digest says. Nothing of them stays in the store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gemel.errors import Failed, GemelError, InvalidInput, NotFound, Unsupported
from gemel.host import files, run
from gemel.image import reference, skopeo
from gemel.image.blobs import check, digest_of
from gemel.image.core import Core
from gemel.image.manifest import OCI_CONFIG, Descriptor
from gemel.image.reference import Reference

LARGEST = 4 << 20
"""Bytes of all layers together."""
MOST = 256
"""Layers."""
_TIMEOUT = 300.0
_IMAGES = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
_REFUSED = ("manifest invalid", "manifest_invalid", "unsupported", "not acceptable")
"""What registries say that take no manifests of a kind."""


class _Entry(msgspec.Struct, rename="camel"):
    digest: str = ""
    artifact_type: str = ""


class _Manifest(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[_Entry] | None = None

    @property
    def kind(self) -> str:
        """The type of the artifact; before OCI 1.1 it was that of its config."""
        return self.artifact_type or (self.config.media_type if self.config else "")


class Artifact(msgspec.Struct, frozen=True):
    """One that was fetched. index: the list that its name stands for, if it does for one."""

    digest: str
    manifest: bytes
    blobs: Mapping[str, bytes]
    """Layers by digest."""
    index: bytes = b""


class _Memory:
    """Where a blob goes; it is known not to be large."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> None:
        self._data += data

    def taken(self, wanted: str) -> bytes:
        """What has come. Raises InvalidInput if it is not what the digest says."""
        data = bytes(self._data)
        if digest_of(data) != wanted:
            raise InvalidInput("a layer is not what its digest says", details=f"wanted {wanted}")
        return data


def _read(raw: bytes) -> _Manifest:
    try:
        found = msgspec.json.decode(raw, type=_Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput("the artifact's manifest is damaged", details=str(error)) from error
    if found.schema_version != 2:
        raise Unsupported(f"manifests of schema version {found.schema_version} are not supported")
    return found


def _layers(manifest: _Manifest, name: Reference, kinds: Collection[str]) -> list[Descriptor]:
    """The layers, once it is sure that they may be fetched. Raises InvalidInput."""
    if kinds and manifest.kind not in kinds:
        what = "an image, not an" if manifest.kind in _IMAGES else "no"
        raise InvalidInput(
            f"{name.familiar} is {what} artifact of the kind wanted",
            details=f"it is {(manifest.kind or 'of no kind')[:200]}, wanted is {next(iter(kinds))}",
        )
    layers = manifest.layers or []
    if len(layers) > MOST:
        raise InvalidInput(f"{name.familiar} has more than {MOST} layers")
    for layer in layers:
        check(layer.digest)
        if layer.size < 0:
            raise InvalidInput(f"{name.familiar} has a layer of an impossible size")
    if sum(layer.size for layer in layers) > LARGEST:
        raise InvalidInput(f"{name.familiar} is larger than {LARGEST >> 20} MiB")
    return layers


async def fetch(
    core: Core, ref: str, auth: Mapping[str, Any] | None, kinds: Collection[str] = ()
) -> Artifact:
    """Fetches an artifact whole.

    kinds: artifact types (or types of the config) that are wanted; none: any.
    Raises NotFound, Unavailable, Failed, InvalidInput (of another kind, too large, damaged).
    """
    name = reference.parse_tagged(ref)
    with skopeo.authfile(core.blobs.temporary, {name.domain: auth}) as secret:
        options = ("--authfile", secret, *skopeo.tls(name, "--tls-verify"))
        try:
            return await _fetched(core, name, kinds, options)
        except Failed as error:
            raise skopeo.explain(error, name) from error


async def _fetched(
    core: Core, name: Reference, kinds: Collection[str], options: Sequence[str]
) -> Artifact:
    suffix = f"@{name.digest}" if name.digest else f":{name.tag}"
    raw = await skopeo.raw_manifest(f"docker://{name.name}{suffix}", *options)
    digest, index = digest_of(raw), b""
    if name.digest and digest != name.digest:
        raise InvalidInput("the registry sent another manifest than asked for", digest)
    manifest = _read(raw)
    if manifest.manifests is not None:
        index, chosen = raw, _chosen(manifest.manifests, name, kinds)
        raw = await skopeo.raw_manifest(f"docker://{name.name}@{chosen}", *options)
        if digest_of(raw) != chosen:
            raise InvalidInput("the registry sent another manifest than its index says")
        manifest = _read(raw)
    blobs: dict[str, bytes] = {}
    wanted = {layer.digest: layer for layer in _layers(manifest, name, kinds)}
    async with skopeo.Proxy.open(core.blobs.temporary, *options) as proxy:
        image = await proxy.image(f"docker://{name.name}@{digest_of(raw)}")
        for layer in wanted.values():
            memory = _Memory()
            if layer.size:
                await proxy.fetch(image, layer, memory, lambda _: None)
            blobs[layer.digest] = memory.taken(layer.digest)
    return Artifact(digest, raw, blobs, index)


def _chosen(entries: Sequence[_Entry], name: Reference, kinds: Collection[str]) -> str:
    for entry in entries:
        if not kinds or entry.artifact_type in kinds:
            return check(entry.digest)
    raise InvalidInput(
        f"{name.familiar} is a list that names no artifact of the kind wanted",
        details=f"wanted is {next(iter(kinds), '')}",
    )


async def push(
    core: Core,
    ref: str,
    auth: Mapping[str, Any] | None,
    manifest: bytes,
    blobs: Sequence[bytes],
) -> str:
    """Sends an artifact to the registry of its name; the digest of its manifest.

    Raises InvalidInput if the manifest speaks of what is not there, Unsupported if the
    registry takes no manifests of this kind, NotFound, Unavailable, Failed.
    """
    name = reference.parse_tagged(ref)
    if name.digest:
        raise InvalidInput(
            f"{name.familiar} names a digest: what is sent has one of its own",
            resolution="give a tag, or neither",
        )
    parsed = _read(manifest)
    known = {digest_of(blob): blob for blob in blobs}
    named = [*([parsed.config] if parsed.config else []), *(parsed.layers or [])]
    for one in named:
        if len(known.get(one.digest, b"")) != one.size or one.digest not in known:
            raise InvalidInput(f"the manifest names {one.digest[:80]}, which was not sent")
    async with core.working():
        with contextlib.ExitStack() as stack:
            secret = stack.enter_context(skopeo.authfile(core.blobs.temporary, {name.domain: auth}))
            source = stack.enter_context(_folder(core.blobs.temporary, manifest, known))
            options = ["--preserve-digests", "--dest-authfile", secret]
            options += skopeo.tls(name, "--dest-tls-verify")
            try:
                await run.run(
                    skopeo.argv("copy", *options, source, f"docker://{name}"), timeout=_TIMEOUT
                )
            except Failed as error:
                raise _told(error, name) from error
    return digest_of(manifest)


@contextlib.contextmanager
def _folder(temporary: Path, manifest: bytes, blobs: Mapping[str, bytes]) -> Iterator[str]:
    """The artifact as skopeo's ``dir:`` transport wants it; yields the source's name."""
    folder = files.folder(temporary / f"artifact-{os.urandom(8).hex()}")
    try:
        files.write(folder / "version", "Directory Transport Version: 1.1\n")
        files.write(folder / "manifest.json", manifest)
        for digest, data in blobs.items():
            files.write(folder / digest[7:], data)
        yield f"dir:{folder}"
    finally:
        files.remove(folder)


def _told(error: Failed, name: Reference) -> GemelError:
    """What skopeo's words about a push mean."""
    low = (error.details or error.brief).lower()
    if any(word in low for word in _REFUSED):
        return Unsupported(
            f"the registry {name.domain} takes no manifests of this kind",
            details=(error.details or error.brief).strip()[-500:],
        )
    found = skopeo.explain(error, name)
    if isinstance(found, NotFound):
        return Failed(
            f"push access denied for {name.familiar_name}, repository does not exist or may "
            "require 'docker login'",
            found.details,
            f"log in first: docker login {name.domain}",
        )
    return found
