"""Tar streams that clients may have compressed; dockerd recognises them by their first bytes."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

from gemel.errors import InvalidInput

#: Bytes handed on at once, whatever a small compressed piece expands to.
_PIECE = 1 << 20
_LONGEST_MAGIC = 6


class _Decompressor(Protocol):
    def feed(self, data: bytes) -> bytes:
        """Up to _PIECE bytes; b"" when more input is needed."""
        ...

    def complete(self) -> bool:
        """Whether the end of the compressed stream has come."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> bytes:
        pending = self._inner.unconsumed_tail + data
        while True:
            out = self._inner.decompress(pending, _PIECE)
            if out or not self._inner.eof or not self._inner.unused_data.strip(b"\0"):
                return out
            pending = self._inner.unused_data  # a further member of the file
            self._inner = zlib.decompressobj(wbits=31)

    def complete(self) -> bool:
        return self._inner.eof


class _Block:
    """bz2 and xz have one interface."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    def feed(self, data: bytes) -> bytes:
        return b"" if self._inner.eof else self._inner.decompress(data, _PIECE)

    def complete(self) -> bool:
        return self._inner.eof


def _for_magic(head: bytes) -> _Decompressor | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return _Gzip()
    if head.startswith(b"BZh"):
        return _Block(bz2.BZ2Decompressor())
    if head.startswith(b"\xfd7zXZ\0"):
        return _Block(lzma.LZMADecompressor())
    return None


async def decompressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream itself, or what gzip, bzip2 or xz made it from, in bounded pieces.

    Raises InvalidInput for a stream that is damaged.
    """
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= _LONGEST_MAGIC:
            break
    decompressor = _for_magic(head)
    if decompressor is None:
        if head:
            yield head
        async for piece in pieces:
            yield piece
        return
    try:
        data = head
        while True:
            while out := decompressor.feed(data):
                data = b""
                yield out
            try:
                data = await anext(pieces)
            except StopAsyncIteration:
                if not decompressor.complete():
                    raise EOFError("it ends too early") from None
                return
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        if isinstance(error, ConnectionError):
            raise
        raise InvalidInput("the compressed archive is damaged", details=str(error)) from None
