"""Files in and out of a micro VM (docker cp, export, commit): that part of its runtime."""

from __future__ import annotations

import abc
import contextlib
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from gemel.model.instance import InstanceSpec
from gemel.model.paths import Paths
from gemel.runtime.base import PathStat
from gemel.runtime.container.archive import packed, refuse_readonly
from gemel.runtime.microvm import archive, layer


class Copies(abc.ABC):
    """See base.Runtime."""

    _paths: Paths

    @abc.abstractmethod
    def _files(
        self, spec: InstanceSpec, running: bool
    ) -> contextlib.AbstractAsyncContextManager[Path]:
        """Run folder of a VM with the instance's files: its own, or one booted for them."""

    async def read_archive(
        self, spec: InstanceSpec, path: str, running: bool
    ) -> AsyncIterator[bytes]:
        """By a tar inside the guest."""
        async with self._files(spec, running) as folder:
            async for piece in archive.read(folder, path):
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
        """By a tar inside the guest. Raises Conflict where the instance is read-only."""
        refuse_readonly(spec, path)
        async with self._files(spec, running) as folder:
            await archive.write(folder, path, tar)

    def read_root(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        """From a tar of the guest's."""
        return self._repacked(spec, running, layer.whole)

    def read_changes(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        """From a tar of the guest's, compared with the image."""
        return self._repacked(spec, running, layer.changed)

    async def _repacked(
        self,
        spec: InstanceSpec,
        running: bool,
        make: Callable[[IO[bytes], InstanceSpec, tarfile.TarFile], None],
    ) -> AsyncIterator[bytes]:
        with tempfile.TemporaryFile(dir=self._paths.instance(spec.id)) as file:
            async with self._files(spec, running) as folder:
                await layer.receive(folder, spec, file)
            async with contextlib.aclosing(packed(lambda out: make(file, spec, out))) as pieces:
                async for piece in pieces:
                    yield piece

    async def stat_path(self, spec: InstanceSpec, path: str, running: bool) -> PathStat:
        """By a stat inside the guest."""
        async with self._files(spec, running) as folder:
            return await archive.stat(folder, path)
