"""One read-only squashfs from an image's layers, through ``tar2sqfs``; nothing is unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from gemel.errors import Failed
from gemel.host import files, run
from gemel.image import threads
from gemel.image.blobs import Blobs
from gemel.image.tarfmt import Limits, scan
from gemel.image.tree import Tree, emit

_TIMEOUT = 1800.0
_PIPE = 1 << 20


async def make(
    blobs: Blobs, layers: Sequence[tuple[str, str]], target: Path, limits: Limits
) -> tuple[int, ...]:
    """Writes the file system of ``layers`` (digest, diff id; lowest first) to ``target``.

    Gives the uncompressed size of each layer, in bytes. Raises InvalidInput for
    layers that are damaged or hostile, Failed, Unavailable. Nothing is left when
    it raises; ``target`` appears whole.
    """
    temporary = blobs.temporary / f"{target.name}.{os.urandom(4).hex()}"
    with contextlib.ExitStack() as stack:
        stack.callback(files.remove, temporary)
        tree = Tree()
        sizes = await threads.call(_read, blobs, layers, tree, limits, stack)
        await _write(tree, temporary, sum(sizes))
        os.replace(temporary, target)
    return sizes


def _read(
    blobs: Blobs,
    layers: Sequence[tuple[str, str]],
    tree: Tree,
    limits: Limits,
    stack: contextlib.ExitStack,
) -> tuple[int, ...]:
    sizes: list[int] = []
    left = limits
    for digest, diff_id in layers:
        file, size = blobs.layer(digest, diff_id, left.size)
        stack.callback(file.close)
        entries = list(scan(file, left))
        new = 0 if digest == diff_id else size
        left = Limits(size=left.size - new, entries=left.entries - len(entries))
        tree.add(entries, file.fileno())
        sizes.append(size)
    return tuple(sizes)


async def _write(tree: Tree, target: Path, size: int) -> None:
    """size: bytes of all layers, no less than the result."""
    # tar2sqfs puts SOURCE_DATE_EPOCH into the superblock: the same layers make the same bytes
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    argv = ["tar2sqfs", "-q", "-s", "-c", "lz4", "-j", str(os.cpu_count() or 1), str(target)]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # a limit for users; without it, it is only slower
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
    feeder: asyncio.Future[None] | None = None
    process: asyncio.subprocess.Process | None = None
    try:
        try:
            process = await run.spawn(argv, stdin=reader, stderr=asyncio.subprocess.PIPE, env=env)
        finally:
            os.close(reader)  # so that the feeder sees it when the program goes away
            if process is None:
                os.close(writer)
        feeder = asyncio.ensure_future(threads.call(_feed, tree, writer))
        async with asyncio.timeout(_TIMEOUT):
            _, errors = await process.communicate()
    except TimeoutError:
        raise Failed(f"tar2sqfs took longer than {_TIMEOUT:g} s and was ended") from None
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if feeder is not None:
            await feeder
    if process.returncode != 0:
        text = errors.decode("utf-8", "replace").strip()
        facts = os.statvfs(target.parent)
        # it says no more of a full disk, and takes away what it wrote
        if "I/O error" in text and facts.f_bavail * facts.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Failed("cannot make a file system image", details=text)


def _feed(tree: Tree, writer: int) -> None:
    """Writes the archive and closes its pipe. A reader that went away tells why itself."""
    try:
        emit(tree, writer)
    except BrokenPipeError:
        pass
    finally:
        os.close(writer)
