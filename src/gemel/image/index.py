"""What images there are: ``images.json`` in the store's folder, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gemel.errors import Failed
from gemel.host import files
from gemel.model.image import History, Image, ImageConfig


class Record(msgspec.Struct, kw_only=True, frozen=True):
    """One image: the blobs that make it, and what is not in them. id: its config's digest."""

    id: str
    manifest: str
    """Digest of the manifest's blob."""
    manifest_type: str
    """Media type of the manifest."""
    layers: tuple[str, ...]
    """Digests of the layers' blobs, lowest first."""
    sizes: tuple[int, ...] = ()
    """Uncompressed sizes of the layers, in bytes."""
    digests: tuple[str, ...] = ()
    """``name@sha256:…``: where it was pulled from or pushed to."""
    parent: str = ""

    @property
    def blobs(self) -> frozenset[str]:
        return frozenset((self.id, self.manifest, *self.layers))


class _File(msgspec.Struct):
    version: int = 1
    images: list[Record] = []
    tags: dict[str, str] = {}


class Index:
    """Records by id, and tags. Every change is on the disk before the call returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, Record] = {}
        self.tags: dict[str, str] = {}
        """Full reference to image id."""

    def load(self) -> None:
        """Raises Failed if the file is not readable as one of ours."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            file = msgspec.json.decode(raw, type=_File)
        except msgspec.MsgspecError as error:
            raise Failed(
                f"the index of images {self._path} is damaged",
                details=str(error),
                resolution="move it away; images then have to be pulled or built anew",
            ) from error
        self.records = {record.id: record for record in file.images}
        self.tags = {tag: id for tag, id in file.tags.items() if id in self.records}

    def save(self) -> None:
        data = _File(images=list(self.records.values()), tags=self.tags)
        files.write(self._path, msgspec.json.encode(data), durable=True)

    def tags_of(self, id: str) -> tuple[str, ...]:
        return tuple(sorted(tag for tag, owner in self.tags.items() if owner == id))


class _RootFs(msgspec.Struct):
    type: str = "layers"
    diff_ids: tuple[str, ...] = ()


class ConfigFile(msgspec.Struct):
    """The config blob (OCI's config.md, and Docker's, which has more in ``config``)."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = ""
    author: str = ""
    comment: str = ""
    config: ImageConfig | None = None
    rootfs: _RootFs = msgspec.field(default_factory=_RootFs)
    history: tuple[History, ...] | None = ()


def image(record: Record, config: ConfigFile, tags: tuple[str, ...]) -> Image:
    """The value that other layers see."""
    return Image(
        id=record.id,
        tags=tags,
        digests=record.digests,
        created=config.created or "",
        architecture=config.architecture or "amd64",
        variant=config.variant,
        os=config.os or "linux",
        author=config.author,
        comment=config.comment,
        size=sum(record.sizes),
        config=config.config or ImageConfig(),
        history=config.history or (),
        diff_ids=config.rootfs.diff_ids,
        parent=record.parent,
    )
