"""The image store, as the engine uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from gemel.image import manifest as manifests
from gemel.image.changes import apply
from gemel.image.core import Core, named
from gemel.image.incoming import inflate

Json = dict[str, Any]


class ImageStore(Core):
    """Images: found, mounted, pulled, pushed, built, loaded, saved, removed.

    Iterators of Json are Docker's progress messages; a failure is raised by the
    iterator as a GemelError.
    """

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
                await inflate(tar, writer, self.limits.size)
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
