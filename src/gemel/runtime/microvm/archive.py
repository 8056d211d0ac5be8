"""Files in and out of a running micro VM, by the agent's own tar inside the guest.

The guest's answers are as little trusted as any of its output: a tar from it
goes to the client as it is, and nothing of it is unpacked on the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec

from gemel.errors import Conflict, Failed, InvalidInput, NotFound
from gemel.runtime.container.archive import KERNELS
from gemel.runtime.microvm.channel import Session, execute
from gemel.runtime.microvm.protocol import FIRST_EXEC, ToGuest, message
from gemel.runtime.microvm.tarcheck import TarCheck

#: Of a helper's error output, so much is kept.
_TEXT_MOST = 8192


class Facts(msgspec.Struct):
    """What lies at a path (base.PathStat)."""

    name: str
    size: int
    mode: int
    mtime: float
    link_target: str


async def helper(folder: Path, *argv: str, stdin: bool = False) -> Session:
    """Starts the agent's busybox with ``argv`` within the service's root, as root."""
    records: list[tuple[str, ...]] = [("helper",), *(("arg", word) for word in argv)]
    if stdin:
        records.append(("stdin",))
    return await execute(folder, list(message(FIRST_EXEC, ToGuest.EXEC, records)))


async def _output(folder: Path, *argv: str) -> tuple[int, bytes, str]:
    session = await helper(folder, *argv)
    out, err = b"", b""
    try:
        while piece := await session.read():
            if piece[0] == 1:
                out = (out + piece[1])[:_TEXT_MOST]
            else:
                err = (err + piece[1])[:_TEXT_MOST]
        return await session.wait(), out, err.decode("utf-8", "replace").strip()
    finally:
        await session.end()


def _clean(path: str) -> str:
    """Absolute, without ``..`` at its end pointing elsewhere than inside the root."""
    return posixpath.normpath("/" + path.lstrip("/"))


async def stat(folder: Path, path: str) -> Facts:
    """Raises NotFound."""
    clean = _clean(path)
    status, out, error = await _output(folder, "stat", "-c", "%s %f %Y", clean)
    if status != 0:
        raise NotFound(f"there is no {path} in it", details=error)
    try:
        size, mode, mtime = out.split()[:3]
        facts = Facts(posixpath.basename(clean) or "/", int(size), int(mode, 16), float(mtime), "")
    except ValueError as problem:
        raise Failed("the guest's answer makes no sense", details=repr(out)) from problem
    if facts.mode & 0o170000 != 0o120000:
        return facts
    _, target, _ = await _output(folder, "readlink", clean)
    text = target.decode("utf-8", "replace").rstrip("\n")
    return msgspec.structs.replace(facts, link_target=text)


async def read(folder: Path, path: str) -> AsyncIterator[bytes]:
    """A tar with ``path`` as its one top entry. Raises NotFound, Failed."""
    await stat(folder, path)
    clean = _clean(path)
    parent, name = posixpath.split(clean)
    wanted = [name]
    if not name:  # what the kernel shows there is no file to copy (as in a container)
        wanted = [f"./{one}" for one in await names(folder, "/") if one not in KERNELS]
    async with contextlib.aclosing(tar(folder, parent, *wanted)) as pieces:
        async for piece in pieces:
            yield piece


async def names(folder: Path, path: str) -> list[str]:
    """What is in a folder, but for names that hold a line's end. Raises NotFound."""
    status, out, error = await _output(folder, "ls", "-A1", _clean(path))
    if status != 0:
        raise NotFound(f"there is no {path} in it", details=error)
    return out.decode("utf-8", "surrogateescape").splitlines()


async def tar(folder: Path, parent: str, *wanted: str) -> AsyncGenerator[bytes, None]:
    """A tar of what is called so in the folder ``parent``. Raises Failed."""
    session = await helper(folder, "tar", "-c", "-f", "-", "-C", parent, *wanted)
    error = b""
    try:
        while piece := await session.read():
            if piece[0] == 1:
                yield piece[1]
            else:
                error = (error + piece[1])[:_TEXT_MOST]
        if await session.wait() != 0 and not _is_removed(error):
            raise Failed(f"cannot read {parent}", details=error.decode("utf-8", "replace").strip())
    finally:
        await session.end()


def _is_removed(error: bytes) -> bool:
    """Whether all that tar complains of is what was removed while it looked."""
    lines = error.splitlines()[: -1 if len(error) >= _TEXT_MOST else None]
    told = [line for line in lines if not line.endswith(b"error exit delayed from previous errors")]
    return bool(told) and all(line.endswith(b": No such file or directory") for line in told)


async def write(folder: Path, path: str, source: AsyncIterator[bytes]) -> None:
    """Unpacks into folder ``path``. Raises NotFound, InvalidInput, Failed."""
    status, _, _ = await _output(folder, "test", "-d", _clean(path))
    if status != 0:
        await stat(folder, path)  # NotFound, unless it is there
        raise InvalidInput(f"{path} is not a folder")
    session = await helper(folder, "tar", "-x", "-f", "-", "-C", _clean(path), stdin=True)
    reader = asyncio.create_task(_words(session))
    try:
        await _send(session, source)
        await session.close_stdin()
        error = await reader
        if await session.wait() != 0:
            if "Read-only file system" in error:
                raise Conflict("its root is read-only", details=error)
            raise Failed(f"cannot unpack into {path}", details=error)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await session.end()


async def _send(session: Session, source: AsyncIterator[bytes]) -> None:
    """Sends the tar on, as far as it is one. Raises InvalidInput."""
    check = TarCheck()
    async for piece in source:
        data = check.feed(piece)
        try:
            await session.write(data)
        except Failed:
            return  # it has ended: its words say why
    check.finish()


async def _words(session: Session) -> str:
    """What a helper says, to its end."""
    said = b""
    while piece := await session.read():
        said = (said + piece[1])[:_TEXT_MOST]
    return said.decode("utf-8", "replace").strip()
