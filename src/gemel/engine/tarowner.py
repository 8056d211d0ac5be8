"""A tar stream with one owner for all its entries (copyUIDGID of docker cp)."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import AsyncIterator

from gemel.errors import InvalidInput

_BLOCK = tarfile.BLOCKSIZE
#: Extended headers of a tar: those about one entry, or all, that come before it.
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_MOST_EXTENDED = 1 << 20
_OWNER = re.compile(rb"\d+ (?:uid|gid|uname|gname)=")


async def owned(tar: AsyncIterator[bytes], uid: int, gid: int) -> AsyncIterator[bytes]:
    """The same archive, its entries owned by ``uid`` and ``gid``; contents go through as they are.

    Raises InvalidInput for what is no tar, and for an owner in an extended header, which is
    only written for ids beyond two million.
    """
    pending = bytearray()
    left = 0  # bytes of the entry's content, with its padding
    extended = bytearray()
    is_extended = False
    async for piece in tar:
        pending += piece
        out = bytearray()
        while pending:
            if left:
                part = pending[:left]
                del pending[: len(part)]
                left -= len(part)
                out += part
                if is_extended:
                    extended += part
                    _check(extended)
            elif len(pending) < _BLOCK:
                break
            else:
                head = bytes(pending[:_BLOCK])
                del pending[:_BLOCK]
                head, left, is_extended = _head(head, uid, gid)
                extended.clear()
                out += head
        if out:
            yield bytes(out)
    if pending or left:
        raise InvalidInput("the archive ends too early")


def _check(extended: bytearray) -> None:
    if len(extended) > _MOST_EXTENDED or _OWNER.search(extended):
        raise InvalidInput("the archive has an extended header that no owner can be set in")


def _head(head: bytes, uid: int, gid: int) -> tuple[bytes, int, bool]:
    """A header with its owner, bytes of content that follow, whether it is an extended one."""
    if not head.strip(b"\0"):
        return head, 0, False
    try:
        entry = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise InvalidInput("this is no tar archive", details=str(error)) from error
    size = -(-entry.size // _BLOCK) * _BLOCK
    if entry.type in _EXTENDED:
        return head, size, True
    new = bytearray(head)
    new[108:116] = b"%07o\0" % uid
    new[116:124] = b"%07o\0" % gid
    if head[257:262] == b"ustar":
        new[265:329] = bytes(64)  # names would win over the numbers
    new[148:156] = b"%06o\0 " % (256 + sum(new[:148]) + sum(new[156:]))
    return bytes(new), size if entry.isreg() or entry.type not in _WITHOUT else 0, False


_WITHOUT = (
    tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)  # fmt: skip


async def text(tar: AsyncIterator[bytes], most: int = 4 << 20) -> bytes:
    """The content of the first file in a tar, at most so many bytes of it."""
    data = bytearray()
    async for piece in tar:
        data += piece
        if len(data) > most:
            raise InvalidInput("a file that names users is too large")
    with tarfile.open(fileobj=io.BytesIO(bytes(data)), mode="r|*") as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            return file.read(most) if file else b""
    return b""
