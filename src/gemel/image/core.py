"""The heart of the store: records, tags, file system images and their mounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from gemel.errors import Conflict, Failed, GemelError, InvalidInput, NotFound
from gemel.host import files, loop, mounts
from gemel.image import manifest as manifests
from gemel.image import reference, squash, threads
from gemel.image.blobs import Blobs
from gemel.image.index import ConfigFile, Index, Record
from gemel.image.index import image as make_image
from gemel.image.partial import Partial
from gemel.image.tarfmt import Limits
from gemel.model.image import Image
from gemel.model.paths import Paths

log = logging.getLogger("gemel.image")

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{2,64})")
_CONVERSIONS = 2
"""File system images that are made at the same time (each uses all processors)."""


class Removed(NamedTuple):
    """What a removal did, in Docker's shape, and the bytes it gave back."""

    messages: list[dict[str, str]]
    size: int


class LayerSizes(NamedTuple):
    """See ``Core.layer_sizes``. shared: by image id."""

    total: int
    shared: dict[str, int]


def no_use(_: str) -> list[str]:
    return []


class Core:
    """Blobs, index, mounts. in_use: names of the containers that use an image id."""

    def __init__(
        self,
        paths: Paths,
        in_use: Callable[[str], list[str]] = no_use,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        self.paths = paths
        self.blobs = Blobs(paths.images)
        self.partial = Partial(paths.images / "partial", self.blobs.size)
        self.limits = limits
        self.in_use = in_use
        self._index = Index(paths.images / "images.json")
        self._configs: dict[str, ConfigFile] = {}
        self._disks = paths.images / "squashfs"
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._converting = asyncio.Semaphore(_CONVERSIONS)
        self._saving = asyncio.Lock()
        self._active = 0
        self._dirty = False

    async def prepare(self) -> None:
        """Once, when the engine starts: folders, the index, what a killed engine left.

        Raises Failed if the index is damaged.
        """
        await threads.call(self.blobs.prepare)
        files.folder(self._disks)
        self._index.load()
        for record in list(self._index.records.values()):
            try:
                await self._convert(record)
            except GemelError as error:
                log.warning("image %s is dropped: %s", record.id, error)
                self._forget(record.id)
        await self._save()
        self._sweep()

    async def close(self) -> None:
        """When the engine stops. Mounts stay: instances use them, and a new engine finds them."""

    @property
    def allowed(self) -> Limits:
        """The limits, and never more than what leaves a tenth of the free disk space free."""
        facts = os.statvfs(self.paths.images)
        free = facts.f_bavail * facts.f_frsize * 9 // 10
        return msgspec.structs.replace(self.limits, size=min(self.limits.size, free))

    # -- looking ----------------------------------------------------------

    def images(self) -> list[Image]:
        """All, the newest first."""
        found = [self._image(record) for record in self._index.records.values()]
        return sorted(found, key=lambda image: (image.created, image.id), reverse=True)

    def find(self, ref: str) -> Image:
        """By tag, digest, id, or two and more digits of an id. Raises NotFound."""
        record = self._by_name(ref) or self._by_id(ref)
        if record is None:
            raise NotFound(
                f"No such image: {_shown(ref)}",
                resolution=f"`gemel pull {ref}` fetches it, `gemel images` shows what there is",
            )
        return self._image(record)

    @property
    def tags(self) -> Mapping[str, str]:
        """Full references to image ids."""
        return self._index.tags

    def get(self, id: str) -> Image | None:
        """By its whole id; None if it is not there."""
        record = self._index.records.get(id)
        return self._image(record) if record else None

    def record(self, image: Image) -> Record:
        """Raises NotFound if the image is gone."""
        try:
            return self._index.records[image.id]
        except KeyError:
            raise NotFound(f"No such image: {image.id}") from None

    def _by_name(self, ref: str) -> Record | None:
        try:
            name = reference.parse_tagged(ref)
        except InvalidInput:
            return None
        if name.digest:
            wanted = f"{name.name}@{name.digest}"
            return next((r for r in self._index.records.values() if wanted in r.digests), None)
        return self._index.records.get(self._index.tags.get(str(name), ""))

    def _by_id(self, ref: str) -> Record | None:
        match = _HEX.fullmatch(ref)
        if match is None:
            return None
        wanted = "sha256:" + match[1]
        found = [r for r in self._index.records.values() if r.id.startswith(wanted)]
        return found[0] if len(found) == 1 else None

    def _image(self, record: Record) -> Image:
        if record.id not in self._configs:
            self._configs[record.id] = manifests.read_config(self.blobs.read(record.id))
        return make_image(record, self._configs[record.id], self._index.tags_of(record.id))

    def layer_sizes(self) -> LayerSizes:
        """Bytes of all layers, each counted once, and of each image's that others have too."""
        sizes: dict[str, int] = {}
        users: dict[str, int] = {}
        of: dict[str, tuple[str, ...]] = {}
        for image in self.images():
            of[image.id] = image.diff_ids
            sizes.update(zip(image.diff_ids, self.record(image).sizes, strict=False))
            for layer in set(image.diff_ids):
                users[layer] = users.get(layer, 0) + 1
        shared = {
            id: sum(sizes.get(layer, 0) for layer in set(layers) if users[layer] > 1)
            for id, layers in of.items()
        }
        return LayerSizes(sum(sizes.values()), shared)

    # -- file systems -----------------------------------------------------

    def disk(self, image: Image) -> Path:
        """The image's file system, a squashfs file. Raises NotFound if the image is gone."""
        return self._disk(self.record(image).id)

    def _disk(self, id: str) -> Path:
        return self._disks / f"{id[7:]}.sqfs"

    async def rootfs(self, image: Image) -> Path:
        """Where the image is mounted, read-only; mounts it if it is not. One mount per image.

        Raises NotFound if the image is gone, Failed, Unavailable.
        """
        disk, target = self.disk(image), self._mountpoint(image.id)
        async with self.lock(f"mount {image.id}"):
            if not mounts.is_mount(target):
                files.folder(target)
                await threads.call(loop.mount_readonly, disk, target, "squashfs")
        return target

    async def release(self, image: Image) -> None:
        """Unmounts it. Idempotent; who still uses the mount keeps it until then."""
        async with self.lock(f"mount {image.id}"):
            self._unmount(image.id)

    def _unmount(self, id: str) -> None:
        target = self._mountpoint(id)
        mounts.unmount(target)
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()

    def _mountpoint(self, id: str) -> Path:
        return self.paths.run / "images" / id[7:]

    async def _convert(self, record: Record) -> Record:
        """Makes the file system image if it is missing, and fills in ``sizes``."""
        disk = self._disk(record.id)
        async with self.lock(f"convert {record.id}"):
            if disk.exists() and len(record.sizes) == len(record.layers):
                return record
            config = manifests.read_config(self.blobs.read(record.id))
            layers = list(zip(record.layers, config.rootfs.diff_ids, strict=True))
            async with self._converting:
                sizes = await squash.make(self.blobs, layers, disk, self.allowed)
        return msgspec.structs.replace(record, sizes=sizes)

    # -- changing ---------------------------------------------------------

    def lock(self, name: str) -> asyncio.Lock:
        """A lock by name, for work that is to be done once at a time."""
        return self._locks.setdefault(name, asyncio.Lock())

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """While inside, no blob is swept away. Whatever brings blobs in does it inside.

        What a failure left, and what was removed meanwhile, goes at the end of the last one.
        """
        self._active += 1
        try:
            yield
        except OSError as error:
            self._dirty = True
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.partial.clear()
            raise Failed(
                "there is no space left for images",
                details=f"{error.strerror}: {self.paths.images}",
                resolution="`gemel system prune` and `gemel image prune` give some back",
            ) from error
        except BaseException:
            self._dirty = True
            raise
        finally:
            self._active -= 1
            if self._dirty and not self._active:
                self._sweep()

    async def add(
        self,
        manifest: bytes,
        *,
        tags: Iterable[reference.Reference] = (),
        digests: Iterable[str] = (),
        parent: str = "",
    ) -> Image:
        """Makes an image of blobs that are here (config, layers), tags it, saves the index.

        Raises InvalidInput if manifest, config or layers do not fit, Failed.
        """
        parsed = manifests.read(manifest)
        if parsed.config is None or parsed.layers is None:
            raise InvalidInput("an index of manifests is no image")
        config = manifests.read_config(self.blobs.read(parsed.config.digest))
        if len(config.rootfs.diff_ids) != len(parsed.layers):
            raise InvalidInput(
                "an image's config and manifest do not fit",
                details=f"{len(config.rootfs.diff_ids)} diff_ids, {len(parsed.layers)} layers",
            )
        async with self.working():
            record = self._index.records.get(parsed.config.digest) or Record(
                id=parsed.config.digest,
                manifest=self.blobs.put(manifest),
                manifest_type=parsed.type,
                layers=tuple(layer.digest for layer in parsed.layers),
                parent=parent,
            )
            record = await self._convert(record)
            known = self._index.records.get(record.id, record)
            both = dict.fromkeys((*known.digests, *digests))
            record = msgspec.structs.replace(record, digests=tuple(both))
            self._index.records[record.id] = record
            for tag in tags:
                self._index.tags[str(tag)] = record.id
            await self._save()
        return self._image(record)

    async def note_digest(self, image: Image, digest: str) -> None:
        """Remembers ``name@sha256:…`` that an image was pushed to or pulled from."""
        record = self.record(image)
        if digest not in record.digests:
            record = msgspec.structs.replace(record, digests=(*record.digests, digest))
            self._index.records[record.id] = record
            await self._save()

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Gives an image one more name. Raises NotFound, InvalidInput."""
        image = self.find(ref)
        name = named(repo, tag)
        if name is None:
            raise InvalidInput("a name is missing")
        self._index.tags[str(name)] = image.id
        await self._save()

    async def remove(self, ref: str, force: bool = False) -> list[dict[str, str]]:
        """Takes a name from an image, and with its last one the image, as ``docker rmi``.

        Raises NotFound, and Conflict while containers use it or, for an id, while
        it has names in several repositories and ``force`` is not given.
        """
        image = self.find(ref)
        users = self.in_use(image.id)
        named_so = self._by_name(ref)
        if named_so is not None and not reference.parse(ref).digest:
            return await self._untag(image, str(reference.parse_tagged(ref)), users, force)
        if users:
            raise _used(f"unable to delete {image.id[7:19]} (cannot be forced)", users, image)
        names = {reference.parse(tag).name for tag in image.tags}
        if len(names) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {image.id[7:19]} (must be forced) - "
                "image is referenced in multiple repositories",
                resolution="remove it by its names, or with --force",
            )
        messages = [_untagged(tag) for tag in image.tags]
        return (await self._delete([image], messages)).messages

    async def _untag(
        self, image: Image, tag: str, users: list[str], force: bool
    ) -> list[dict[str, str]]:
        if len(image.tags) == 1 and users and not force:
            shown = reference.familiar(tag)
            raise _used(
                f'unable to remove repository reference "{shown}" (must force)', users, image
            )
        if len(image.tags) > 1 or users:
            del self._index.tags[tag]
            await self._save()
            return [_untagged(tag)]
        return (await self._delete([image], [_untagged(tag)])).messages

    async def prune(self, dangling_only: bool = True) -> Removed:
        """Removes images that no container uses and, with ``dangling_only``, that have no name."""
        gone = [
            image
            for image in self.images()
            if not (dangling_only and image.tags) and not self.in_use(image.id)
        ]
        messages = [_untagged(tag) for image in gone for tag in image.tags]
        self.partial.clear()
        return await self._delete(gone, messages)

    async def _delete(self, gone: list[Image], messages: list[dict[str, str]]) -> Removed:
        for image in gone:
            messages += [{"Untagged": reference.familiar(digest)} for digest in image.digests]
            messages.append({"Deleted": image.id})
            self._forget(image.id)
        await self._save()
        return Removed(messages, self._sweep())

    def _forget(self, id: str) -> None:
        self._index.records.pop(id, None)
        self._configs.pop(id, None)
        for tag in self._index.tags_of(id):
            del self._index.tags[tag]

    def _sweep(self) -> int:
        """Removes blobs and file systems of no image, once nobody is bringing some in.

        What a pull that broke off has brought in whole stays for a while. Gives the bytes
        freed now. Does not await: nothing can begin to use a blob meanwhile.
        """
        self._dirty = bool(self._active)
        if self._dirty:
            return 0
        records = self._index.records
        wanted = {blob for record in records.values() for blob in record.blobs}
        wanted |= self.partial.spared()
        freed = sum(self.blobs.remove(digest) for digest in self.blobs.digests() - wanted)
        for disk in self._disks.iterdir():
            id = "sha256:" + disk.stem
            if id not in records:
                self._unmount(id)
                freed += disk.stat().st_size
                disk.unlink()
        return freed

    async def _save(self) -> None:
        async with self._saving:
            await threads.call(self._index.save)


def named(repo: str, tag: str = "") -> reference.Reference | None:
    """A name from Docker's ``repo`` and ``tag`` parameters; None without any."""
    if not repo:
        return None
    name = reference.parse(f"{repo}:{tag}" if tag else repo).tagged()
    if name.digest:
        raise InvalidInput("refusing to create a tag with a digest reference")
    return name


def _shown(ref: str) -> str:
    try:
        return reference.parse_tagged(ref).familiar
    except InvalidInput:
        return ref


def _untagged(tag: str) -> dict[str, str]:
    return {"Untagged": reference.familiar(tag)}


def _used(what: str, users: list[str], image: Image) -> Conflict:
    return Conflict(
        f"conflict: {what} - container {users[0]} is using its referenced image {image.id[7:19]}",
        details=f"used by: {', '.join(users)}" if len(users) > 1 else "",
        resolution="remove these containers first",
    )
