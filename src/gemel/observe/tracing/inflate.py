"""Bodies of requests, unpacked within bounds. Pure."""

from __future__ import annotations

import zlib

from gemel.errors import InvalidInput

#: Bytes of one request, unpacked; what collectors take, too.
LIMIT = 16 << 20
_GZIP_OR_ZLIB = 32 + 15


def inflate(data: bytes, encoding: str) -> bytes:
    """A body whose encoding is gzip, deflate or identity. Raises InvalidInput."""
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "deflate"):
        raise InvalidInput(f"the encoding `{encoding[:40]}` is not known", "gzip and none are")
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        made = unpacker.decompress(data, LIMIT)
    except zlib.error as error:
        raise InvalidInput("the body cannot be unpacked", details=str(error)) from error
    if unpacker.unconsumed_tail:
        raise InvalidInput(f"the body is larger than {LIMIT >> 20} MiB")
    if not unpacker.eof:
        raise InvalidInput("the body ends too early")
    return made
