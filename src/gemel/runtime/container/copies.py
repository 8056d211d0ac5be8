"""Files in and out of a container (docker cp, export, commit): that part of its runtime."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from gemel.model.instance import InstanceSpec
from gemel.runtime.base import PathStat
from gemel.runtime.container import archive, layer


class Copies(abc.ABC):
    """See base.Runtime."""

    @abc.abstractmethod
    def _view(self, spec: InstanceSpec) -> contextlib.AbstractAsyncContextManager[Path]:
        """The root as the container sees it, running or not."""

    @abc.abstractmethod
    async def create(self, spec: InstanceSpec) -> None:
        """Makes the writable layer if there is none."""

    async def read_archive(
        self, spec: InstanceSpec, path: str, running: bool
    ) -> AsyncIterator[bytes]:
        async with self._view(spec) as root:
            async for piece in archive.read(root, path):
                yield piece

    async def write_archive(
        self,
        spec: InstanceSpec,
        path: str,
        tar: AsyncIterator[bytes],
        running: bool,
        *,
        keep: bool = True,
    ) -> None:
        archive.refuse_readonly(spec, path)
        async with self._view(spec) as root:
            await archive.write(root, path, tar, keep)

    async def read_root(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        skip = layer.foreign(spec)
        async with self._view(spec) as root:
            pieces = archive.packed(lambda tar: layer.pack(layer.RootPacker(tar, skip), root))
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    yield piece

    async def read_changes(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        skip, upper = layer.foreign(spec), spec.layer / "upper"
        await self.create(spec)
        pieces = archive.packed(lambda tar: layer.pack(layer.LayerPacker(tar, skip), upper))
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def stat_path(self, spec: InstanceSpec, path: str, running: bool) -> PathStat:
        async with self._view(spec) as root:
            return await asyncio.to_thread(archive.facts, root, path)
