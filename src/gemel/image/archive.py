"""Images as archives: ``docker save`` and ``docker load``.

What is written is an OCI layout that also has Docker's manifest.json, as Docker
25 and later write it: read by every Docker, Podman and skopeo, with all digests
kept. Both kinds alone are read too. An archive that is read is never unpacked:
it lies in one file without a name, and its members are found by their place.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import BinaryIO, cast

import msgspec

from gemel.errors import GemelError, InvalidInput
from gemel.image import manifest as manifests
from gemel.image import reference, tarfmt, threads
from gemel.image.blobs import check, digest_of
from gemel.image.core import Core
from gemel.image.incoming import spool
from gemel.image.inflate import PIECE
from gemel.image.manifest import Descriptor, Manifest
from gemel.image.progress import Emit
from gemel.image.reference import Reference
from gemel.image.tarfmt import Entry
from gemel.model.image import Image

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_JSON = 16 << 20
_MAX_IMAGES = 1000
_MAX_LINKS = 8
_NAME = "io.containerd.image.name"
_REF = "org.opencontainers.image.ref.name"


class _Saved(msgspec.Struct, rename="pascal"):
    """An entry of Docker's manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] = []


async def save(core: Core, refs: Sequence[str]) -> AsyncIterator[bytes]:
    """The archive of one or more images, in pieces. Raises NotFound before the first."""
    names: dict[str, list[Reference]] = {}
    for ref in refs:
        image = core.find(ref)
        tags = names.setdefault(image.id, [])
        tags += [tag for tag in _asked(image, ref) if tag not in tags]
    async with core.working():
        digests, small = _describe(core, names)
        for path, data in small.items():
            yield _member(path, len(data)) + data + _padding(len(data))
        for digest in digests:
            size = core.blobs.size(digest)
            yield _member(f"blobs/sha256/{digest[7:]}", size)
            with core.blobs.path(digest).open("rb") as file:
                while data := await threads.call(file.read, PIECE):
                    yield data
            yield _padding(size)
        yield b"\0" * (2 * tarfmt.BLOCK)


def _asked(image: Image, ref: str) -> list[Reference]:
    """The names that go into the archive: the one asked for, none for an id."""
    try:
        name = str(reference.parse_tagged(ref))
    except InvalidInput:
        return []
    return [reference.parse(name)] if name in image.tags else []


def _describe(
    core: Core, names: Mapping[str, list[Reference]]
) -> tuple[list[str], dict[str, bytes]]:
    """The blobs to write, once each, and the small files that describe them."""
    digests: dict[str, None] = {}
    index: list[Descriptor] = []
    saved: list[_Saved] = []
    for id, tags in names.items():
        image = core.get(id)
        assert image is not None
        record = core.record(image)
        digests |= dict.fromkeys((record.manifest, record.id, *record.layers))
        saved.append(
            _Saved(
                config=f"blobs/sha256/{id[7:]}",
                repo_tags=[tag.familiar for tag in tags] or None,
                layers=[f"blobs/sha256/{layer[7:]}" for layer in record.layers],
            )
        )
        size = core.blobs.size(record.manifest)
        notes = [{_NAME: str(tag), _REF: tag.tag} for tag in tags] or [{}]
        index += [Descriptor(record.manifest_type, record.manifest, size, n or None) for n in notes]
    top = Manifest(schema_version=2, media_type=manifests.OCI_INDEX, manifests=index)
    small = {
        "oci-layout": _LAYOUT,
        "index.json": msgspec.json.encode(top),
        "manifest.json": msgspec.json.encode(saved),
    }
    return list(digests), small


def _member(path: str, size: int) -> bytes:
    return tarfmt.header(Entry(kind=tarfmt.FILE, path=path.encode(), size=size))


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfmt.BLOCK)


async def load(core: Core, emit: Emit, tar: AsyncIterator[bytes]) -> None:
    """Reads an archive and makes its images. Raises InvalidInput."""
    with tempfile.TemporaryFile(dir=core.blobs.temporary) as file:
        async with core.working():
            await spool(tar, file, core.allowed.size)
            source = await threads.call(_Archive, cast(BinaryIO, file), core.allowed)
            if source.has("index.json"):
                await _load_layout(core, emit, source)
            elif source.has("manifest.json"):
                await _load_docker(core, emit, source)
            else:
                raise InvalidInput(
                    "the archive holds no image",
                    details="it has neither manifest.json nor index.json at its top",
                    resolution="for the archive of a root file system use import",
                )


class _Archive:
    """The members of an archive, by path."""

    def __init__(self, file: BinaryIO, limits: tarfmt.Limits) -> None:
        self._file = file
        file.seek(0)
        self._entries = {entry.path: entry for entry in tarfmt.scan(file, limits)}

    def has(self, path: str) -> bool:
        return path.encode() in self._entries

    def _find(self, path: str) -> Entry:
        """Links lead to other members, never out of the archive."""
        where = path
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(tarfmt.clean(where.encode()))
            if entry is None:
                break
            if entry.kind == tarfmt.FILE:
                return entry
            target = entry.target.decode("utf-8", "replace")
            if entry.kind == tarfmt.SYMLINK:
                target = posixpath.normpath(posixpath.join(posixpath.dirname(where), target))
            where = target
        raise InvalidInput(f"the archive has no file {path}")

    def json(self, path: str) -> bytes:
        entry = self._find(path)
        if entry.size > _MAX_JSON:
            raise InvalidInput(f"the archive's {path} is too large")
        self._file.seek(entry.offset)
        return self._file.read(entry.size)

    def blob(self, digest: str) -> str:
        return f"blobs/sha256/{check(digest)[7:]}"

    def store(self, core: Core, path: str, digest: str = "") -> tuple[str, int]:
        """Copies a member into the blobs; its digest and size. Blocks; for a thread."""
        entry = self._find(path)
        with core.blobs.writer(digest) as writer:
            self._file.seek(entry.offset)
            left = entry.size
            while left:
                data = self._file.read(min(left, PIECE))
                if not data:
                    raise InvalidInput(f"the archive ends within {path}")
                writer.write(data)
                left -= len(data)
            return writer.commit(), writer.size


async def _load_layout(core: Core, emit: Emit, source: _Archive) -> None:
    """An OCI layout. Names come from manifest.json if there is one, else from annotations."""
    names: dict[str, list[str]] = {}
    if source.has("manifest.json"):
        for entry in _saved(source):
            names[digest_of(source.json(entry.config))] = entry.repo_tags or []
    index = manifests.read(source.json("index.json"))
    done: set[str] = set()
    for descriptor in (index.manifests or [])[:_MAX_IMAGES]:
        raw = _manifest(source, descriptor)
        parsed = manifests.read(raw)
        assert parsed.config is not None
        tags = names.get(parsed.config.digest, _annotated(descriptor))
        key = f"{parsed.config.digest} {tags}"
        if key in done:
            continue
        done.add(key)
        for blob in (parsed.config, *(parsed.layers or [])):
            if not core.blobs.has(blob.digest):
                await threads.call(source.store, core, source.blob(blob.digest), blob.digest)
        await _finish(core, emit, raw, parsed.config.digest, tags)


def _manifest(source: _Archive, descriptor: Descriptor) -> bytes:
    """The manifest that a descriptor leads to; of an index the one for this machine."""
    for _ in range(3):
        raw = source.json(source.blob(descriptor.digest))
        if digest_of(raw) != descriptor.digest:
            raise InvalidInput("a manifest is not what its digest says", descriptor.digest)
        parsed = manifests.read(raw)
        if parsed.manifests is None:
            return raw
        descriptor = manifests.choose(parsed, manifests.own_platform())
    raise InvalidInput("an index of an index of an index is no image")


def _annotated(descriptor: Descriptor) -> list[str]:
    notes = descriptor.annotations or {}
    if _NAME in notes:
        return [notes[_NAME]]
    text = notes.get(_REF, "")
    return [text] if "/" in text or ":" in text else []


def _saved(source: _Archive) -> list[_Saved]:
    try:
        return msgspec.json.decode(source.json("manifest.json"), type=list[_Saved])[:_MAX_IMAGES]
    except msgspec.MsgspecError as error:
        raise InvalidInput("the archive's manifest.json is damaged", str(error)) from error


async def _load_docker(core: Core, emit: Emit, source: _Archive) -> None:
    """Docker's own format: the layers are files whose digests the config tells."""
    for entry in _saved(source):
        raw = source.json(entry.config)
        config = manifests.read_config(raw)
        layers: list[tuple[str, int]] = []
        if len(entry.layers) != len(config.rootfs.diff_ids):
            raise InvalidInput("the archive's manifest.json and config do not fit")
        for path, diff_id in zip(entry.layers, config.rootfs.diff_ids, strict=True):
            if core.blobs.has(diff_id):
                layers.append((diff_id, core.blobs.size(diff_id)))
            else:
                layers.append(await threads.call(source.store, core, path))
        id = core.blobs.put(raw)
        await _finish(core, emit, manifests.compose(raw, id, layers), id, entry.repo_tags or [])


async def _finish(core: Core, emit: Emit, manifest: bytes, id: str, tags: list[str]) -> None:
    names = [reference.parse_tagged(tag) for tag in tags]
    if core.get(id) is None:
        emit({"status": "Preparing", "id": id[7:19]})
    try:
        await core.add(manifest, tags=names)
    except GemelError as error:
        what = names[0].familiar if names else id[:19]
        error.brief = f"cannot load {what}: {error.brief}"
        raise
    for name in names:
        emit({"stream": f"Loaded image: {name.familiar}\n"})
    if not names:
        emit({"stream": f"Loaded image ID: {id}\n"})
