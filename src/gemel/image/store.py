"""The image store, as the engine uses it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gemel.errors import InvalidInput
from gemel.host import files
from gemel.image import archive, bootstrap, threads
from gemel.image import manifest as manifests
from gemel.image import options as build_options
from gemel.image.build import Builder
from gemel.image.changes import apply
from gemel.image.core import Core, named, no_use
from gemel.image.incoming import inflate
from gemel.image.inputs import Private, Waiting
from gemel.image.progress import Emit, Json, stream
from gemel.image.tarfmt import Limits
from gemel.image.transfer import Auth, distribution, pull, push
from gemel.model.image import Image
from gemel.model.paths import Paths


class LayerOf(NamedTuple):
    """A further layer for an image, and what the new image says of itself."""

    tar: AsyncIterator[bytes]
    config: dict[str, Any]
    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    created_by: str = ""
    changes: Sequence[str] = ()


class ImageStore(Core):
    """Images: found, mounted, pulled, pushed, built, loaded, saved, removed.

    Iterators of Json are Docker's progress messages; a failure is raised by the
    iterator as a GemelError.
    """

    def __init__(
        self,
        paths: Paths,
        in_use: Callable[[str], list[str]] = no_use,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(paths, in_use, limits)
        self._builder = Builder(self)
        self._waiting = Waiting()

    async def prepare(self) -> None:
        """Once, when the engine starts. Raises Failed if the index is damaged."""
        await super().prepare()
        await self._builder.tidy()

    def build(
        self,
        context: AsyncIterator[bytes],
        options: Mapping[str, str],
        auth: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Json]:
        """Builds from a Dockerfile, as Docker's POST /build.

        context: a tar archive, compressed or not. options: the query's parameters
        (see options.py); several tags are parted by newlines or commas. auth:
        credentials by registry (X-Registry-Config), or None.

        Raises Failed with the last lines of a failing build, InvalidInput, NotFound,
        Unavailable, Unsupported.
        """
        parsed = build_options.parse(options)
        private = self._waiting.take(parsed.secrets) if parsed.secrets else Private()

        async def work(emit: Emit) -> None:
            for what in parsed.ignored:
                emit({"stream": f"[Warning] no effect here: {what}\n"})
            await self._builder.build(emit, context, parsed, auth or {}, private)

        return stream(work)

    def keep_private(self, private: Private) -> str:
        """Keeps a build's secrets until it begins; the token that the build names them by."""
        return self._waiting.keep(private)

    def bootstrap(
        self, ref: str, suite: str = "", packages: Sequence[str] = (), extra: bytes = b""
    ) -> AsyncIterator[Json]:
        """Makes a base image from Debian's packages, from the machine's own apt sources.

        suite: the machine's own if it is empty. extra: a tar that is unpacked over them.
        The last message is ``{"aux": {"ID": id}}``.
        Raises InvalidInput, Unavailable (the mirror is not reached), Failed.
        """
        name = named(ref)
        if name is None:
            raise InvalidInput("a name for the image is missing")

        async def work(emit: Emit) -> None:
            folder = files.folder(self.blobs.temporary / f"bootstrap-{os.urandom(8).hex()}")
            try:
                tar = bootstrap.tar(folder, emit, suite, packages, extra)
                async for message in self.import_tar(
                    tar,
                    ref,
                    message=f"Debian packages: {' '.join(packages)}".strip(": "),
                    changes=bootstrap.CHANGES,
                    created=bootstrap.CREATED,
                ):
                    emit(message)
            finally:
                await threads.call(files.remove, folder)
            image = self.find(ref)
            emit({"stream": f"Successfully tagged {name.familiar}\n"})
            emit({"aux": {"ID": image.id}})

        return stream(work)

    async def prune_builds(self) -> int:
        """Removes the cache of built layers, unless a build goes on; bytes freed."""
        return await self._builder.prune()

    async def build_cache(self) -> int:
        """Bytes that the cache of built layers takes."""
        return await self._builder.size()

    async def distribution(self, ref: str, auth: Auth = None) -> dict[str, Any]:
        """What a registry has under a name. Raises NotFound, Unavailable, Failed."""
        return await distribution(self, ref, auth)

    def pull(self, ref: str, auth: Auth = None, platform: str = "") -> AsyncIterator[Json]:
        """Fetches an image from its registry, as ``docker pull``.

        auth: what Docker's X-Registry-Auth header holds. Raises NotFound,
        Unavailable (the registry is not reached), Failed (it refuses), InvalidInput.
        """

        async def work(emit: Emit) -> None:
            await pull(self, emit, ref, auth, platform)

        return stream(work)

    def push(self, ref: str, auth: Auth = None) -> AsyncIterator[Json]:
        """Sends an image to the registry that its name names, as ``docker push``."""

        async def work(emit: Emit) -> None:
            await push(self, emit, ref, auth)

        return stream(work)

    def load(self, tar: AsyncIterator[bytes]) -> AsyncIterator[Json]:
        """Makes the images of an archive (``docker save``, OCI layout). Raises InvalidInput."""

        async def work(emit: Emit) -> None:
            await archive.load(self, emit, tar)

        return stream(work)

    def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]:
        """An archive that ``docker load`` reads, in pieces. Raises NotFound at the first."""
        return archive.save(self, refs)

    async def import_tar(
        self,
        tar: AsyncIterator[bytes],
        repo: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        *,
        created: str = "",
    ) -> AsyncIterator[Json]:
        """Makes an image of a root file system's archive, as ``docker import``.

        created: RFC 3339; now if it is empty. The last message has the new id
        as its status. Raises InvalidInput.
        """
        name = named(repo, tag)
        config = apply({}, changes)
        async with self.working():
            with self.blobs.writer() as writer:
                await inflate(tar, writer, self.allowed.size)
                diff_id = writer.commit()
            raw = manifests.new_config(
                diff_id=diff_id,
                config=config,
                created=created or manifests.now(),
                comment=message or "Imported from -",
                created_by="",
            )
            id = self.blobs.put(raw)
            manifest = manifests.compose(raw, id, [(diff_id, writer.size)])
            yield {"status": "Preparing", "id": id[7:19]}
            image = await self.add(manifest, tags=[name] if name else [])
        yield {"status": image.id}

    async def commit(self, base: Image, new: LayerOf) -> Image:
        """An image with one layer more, as ``docker commit``. Raises NotFound, InvalidInput."""
        name = named(new.repo, new.tag)
        config = apply(new.config, new.changes)
        async with self.working():
            record = self.record(base)
            with self.blobs.writer() as writer:
                await inflate(new.tar, writer, self.allowed.size)
                diff_id = writer.commit()
            raw = manifests.extended_config(
                self.blobs.read(record.id),
                diff_id=diff_id,
                config=config,
                author=new.author,
                line={
                    "created": manifests.now(),
                    "created_by": new.created_by,
                    "author": new.author,
                    "comment": new.comment,
                },
            )
            id = self.blobs.put(raw)
            manifest = manifests.extended(
                self.blobs.read(record.manifest), (id, len(raw)), (diff_id, writer.size)
            )
            return await self.add(manifest, tags=[name] if name else [], parent=base.id)
