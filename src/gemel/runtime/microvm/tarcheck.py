"""Looks through a tar on its way into a guest: well-formed, and no name with ``..``. Pure.

The guest's own tar unpacks it, inside; this is for a clear answer to a wrong
request, before anything of it is unpacked. Compressed tars are unpacked here.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Protocol

from gemel.errors import InvalidInput

BLOCK = 512
#: Of a long name or a pax header, at most so much is kept.
_LONGEST = 1 << 20
_NAMES, _OTHERS = (b"L",), (b"x",)


class _Decompressor(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompressor(start: bytes) -> _Decompressor | None:
    if start.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    if start.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor()
    return None


def _bad(details: str) -> InvalidInput:
    return InvalidInput("this is no tar that can be unpacked", details=details)


class TarCheck:
    """Fed with a stream's pieces, gives back what may go on."""

    def __init__(self) -> None:
        self._decompressor: _Decompressor | None = None
        self._begun = False
        self._header = b""
        self._skip = 0
        self._keep: bytearray | None = None
        self._kind = b""
        self._long_name = ""
        self._entries = 0
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """The (decompressed) bytes of ``data``. Raises InvalidInput."""
        if not data:
            return b""
        if not self._begun:
            self._begun = True
            self._decompressor = _decompressor(data[:6])
        if self._decompressor is not None:
            try:
                data = self._decompressor.decompress(data)
            except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
                raise _bad(str(error)) from error
        self._look(data)
        return data

    def finish(self) -> None:
        """At the end of the stream. Raises InvalidInput if it ended too early."""
        if self._begun and (self._skip or len(self._header) or not (self._entries or self._over)):
            raise _bad("it ends in the middle")

    def _look(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._over:
            if self._skip:
                step = min(self._skip, len(data) - at)
                if self._keep is not None:
                    self._keep += data[at : at + step]
                self._skip -= step
                at += step
                if not self._skip:
                    self._whole()
                continue
            step = BLOCK - len(self._header)
            self._header += data[at : at + step]
            at += step
            if len(self._header) == BLOCK:
                header, self._header = self._header, b""
                self._entry(header)

    def _entry(self, header: bytes) -> None:
        if not any(header):
            self._over = True  # the end; what follows is padding
            return
        stored = _number(header[148:156])
        if stored != sum(header) - sum(header[148:156]) + 8 * 32:
            raise _bad("an entry's checksum is wrong")
        size = _number(header[124:136])
        if size < 0:
            raise _bad("an entry's size is wrong")
        self._entries += 1
        self._kind = header[156:157]
        if self._kind in _NAMES + _OTHERS:
            if size > _LONGEST:
                raise _bad("a name is longer than 1 MiB")
            self._keep = bytearray()
        else:
            name = self._long_name or _name(header)
            self._long_name = ""
            _refuse_leaving(name)
        if self._kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0
        self._skip = (size + BLOCK - 1) // BLOCK * BLOCK
        if not self._skip:
            self._whole()

    def _whole(self) -> None:
        """An entry's data is through."""
        kept, self._keep = self._keep, None
        if kept is None:
            return
        if self._kind in _NAMES:
            self._long_name = kept.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif found := _pax_path(bytes(kept)):
            self._long_name = found


def _number(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    text = field.strip(b" \0")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise _bad("a header holds no number where one belongs") from None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _pax_path(data: bytes) -> str:
    """The ``path`` of a pax header: lines of ``LENGTH KEY=VALUE``."""
    found = ""
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            return found
        line, data = data[: int(length)], data[int(length) :]
        key, _, value = line[len(length) + 1 :].rstrip(b"\n").partition(b"=")
        if key == b"path":
            found = value.decode("utf-8", "surrogateescape")
    return found


def _refuse_leaving(name: str) -> None:
    if ".." in name.split("/"):
        raise InvalidInput(
            f"the archive holds a name that leads out of its folder: {name[:200]}",
            resolution="make the archive without `..` in its names",
        )
