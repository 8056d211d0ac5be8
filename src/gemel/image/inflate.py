"""Taking compression off a stream: gzip, zstd, bzip2, xz, or none, by its first bytes.

A bomb is bounded: output comes in pieces of at most PIECE bytes and counts
against a limit.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from gemel.errors import InvalidInput

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

PIECE = 1 << 20


class _Decompressor(Protocol):
    """The interface that bz2, lzma and zstd share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Gzip:
    """zlib behind the same interface."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        # a full piece of output may leave more of it inside, with all input taken
        return not self._inner.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self._full = len(out) == max_length
        return out


_KINDS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", _Gzip),
    (b"\x28\xb5\x2f\xfd", lambda: zstd.ZstdDecompressor()),
    (b"BZh", lambda: bz2.BZ2Decompressor()),
    (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(memlimit=256 << 20)),
)
HEAD = max(len(magic) for magic, _ in _KINDS)
"""Bytes of a stream's begin that tell its compression."""


def is_compressed(head: bytes) -> bool:
    """Whether a stream that begins with ``head`` is compressed."""
    return any(head.startswith(magic) for magic, _ in _KINDS)


class Inflater:
    """Fed with a stream's pieces, gives what is in it. limit: bytes of output accepted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = b""
        self._known = False
        self._make: Callable[[], _Decompressor] | None = None
        self._inner: _Decompressor | None = None
        self.size = 0
        """Bytes given out so far."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` brings. Raises InvalidInput if it is damaged or over the limit."""
        if not self._known:
            self._head += data
            if len(self._head) < HEAD:
                return
            data = self._begin()
        yield from self._counted(data)

    def finish(self) -> Iterator[bytes]:
        """The rest. Raises InvalidInput if the stream ended too early."""
        if not self._known:
            yield from self._counted(self._begin())
        if self._inner is not None and not self._inner.eof:
            raise InvalidInput("a compressed archive ends too early")

    def _begin(self) -> bytes:
        self._known = True
        for magic, make in _KINDS:
            if self._head.startswith(magic):
                self._make, self._inner = make, make()
        data, self._head = self._head, b""
        return data

    def _counted(self, data: bytes) -> Iterator[bytes]:
        for piece in self._pieces(data) if self._make else (data,):
            self.size += len(piece)
            if self.size > self._limit:
                raise InvalidInput(
                    f"an archive holds more than {self._limit >> 20} MiB",
                    details="decompression was stopped there",
                )
            if piece:
                yield piece

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        assert self._make is not None
        try:
            while data:
                if self._inner is None or self._inner.eof:
                    # streams may follow one another (gzip, zstd), and zeros the last
                    data = data.lstrip(b"\0")
                    if not data:
                        return
                    self._inner = self._make()
                yield self._inner.decompress(data, PIECE)
                while not self._inner.eof and not self._inner.needs_input:
                    yield self._inner.decompress(b"", PIECE)
                data = self._inner.unused_data if self._inner.eof else b""
        except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError) as error:
            raise InvalidInput("a compressed archive is damaged", details=str(error)) from error
