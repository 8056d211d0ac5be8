"""Tar archives: what lies where in one, and headers for a new one. Nothing is unpacked.

Reads ustar, pax (path, linkpath, size, uid, gid, mtime, extended attributes) and
GNU long names; writes ustar with pax records where they are needed. Names are
bytes, as the kernel has them. Whoever wrote the archive is not trusted: every
size, count and name is bounded, and a name with ``..`` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import msgspec

from gemel.errors import InvalidInput

BLOCK = 512
_MAX_EXTENDED = 1 << 20
_MAX_PATH = 4096
_MAX_COMPONENT = 255
_XATTR = "SCHILY.xattr."

FILE, LINK, SYMLINK, CHAR, DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_REGULAR = (b"0", b"\0", b"7")


class Entry(msgspec.Struct, frozen=True):
    """One entry of an archive. offset: where its content begins, in bytes.

    path: normalised, without a leading slash, no ``.`` or ``..``; empty for the root.
    target: of a symbolic link as it stands; of a hard link normalised like ``path``.
    """

    kind: bytes
    path: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    offset: int = 0
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = {}


class Limits(msgspec.Struct, frozen=True):
    """How much of an untrusted archive is accepted. size: bytes when decompressed."""

    size: int = 64 << 30
    entries: int = 1_000_000


def clean(name: bytes) -> bytes:
    """A name relative to the root. Raises InvalidInput for ``..``, NUL and what is too long."""
    if b"\0" in name:
        raise _hostile("a name holds a NUL byte", name)
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _hostile("a name leaves the image's root", name)
    path = b"/".join(parts)
    if len(path) > _MAX_PATH or any(len(part) > _MAX_COMPONENT for part in parts):
        raise _hostile("a name is too long", name)
    return path


def scan(file: BinaryIO, limits: Limits) -> Iterator[Entry]:
    """The entries of an archive in their order; ``file`` can seek and is at its begin.

    Raises InvalidInput if it is damaged, truncated, or more than the limits allow.
    """
    size = file.seek(0, 2)
    shared: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    position = count = 0
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if not header or (len(header) == BLOCK and not any(header)):
            return
        if len(header) < BLOCK:
            raise _damaged("it ends within a header")
        kind, length = _check(header)
        position += BLOCK
        count += 1
        if count > limits.entries:
            raise InvalidInput(f"an archive has more than {limits.entries} entries")
        if kind in b"xgLK":
            # these say something of the next entry (of all others: g)
            if length > _MAX_EXTENDED or position + length > size:
                raise _damaged("an extended header is too long")
            data = file.read(length)
            if kind in b"xg":
                (own if kind == b"x" else shared).update(_records(data))
            else:
                own[b"path" if kind == b"L" else b"linkpath"] = data.split(b"\0")[0]
            position += _padded(length)
            continue
        entry = _entry(header, kind, position, shared | own if shared else own)
        if entry.offset + entry.size > size:
            raise _damaged("it ends within a file")
        yield entry
        own = {}
        # a size of a link or folder stands for no content (POSIX), except hard links of pax
        position += _padded(entry.size)


def _check(header: bytes) -> tuple[bytes, int]:
    """Kind and size of a header. Raises InvalidInput on a wrong sum."""
    expected = _number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 32 != expected:
        raise _damaged("a header's checksum is wrong")
    return header[156:157], _number(header[124:136])


def _entry(header: bytes, kind: bytes, offset: int, extended: Mapping[bytes, bytes]) -> Entry:
    if kind == b"S" or any(key.startswith(b"GNU.sparse") for key in extended):
        raise InvalidInput(
            "an archive holds a sparse file in GNU's format",
            resolution="write the archive without --sparse",
        )
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    name = extended.get(b"path", name)
    target = extended.get(b"linkpath", header[157:257].split(b"\0")[0])
    if kind in _REGULAR:
        kind = FOLDER if name.endswith(b"/") and kind != b"0" else FILE
    size = _decimal(extended[b"size"]) if b"size" in extended else _number(header[124:136])
    if len(target) > _MAX_PATH:
        raise _hostile("a link's target is too long", target)
    return Entry(
        kind=kind,
        path=clean(name),
        mode=_number(header[100:108]) & 0o7777,
        uid=_owner(extended.get(b"uid"), header[108:116]),
        gid=_owner(extended.get(b"gid"), header[116:124]),
        mtime=_time(extended.get(b"mtime"), header[136:148]),
        size=size if kind == FILE else 0,
        offset=offset,
        target=clean(target) if kind == LINK else target,
        major=_number(header[329:337]) if kind in (CHAR, DEVICE) else 0,
        minor=_number(header[337:345]) if kind in (CHAR, DEVICE) else 0,
        xattrs={
            key[len(_XATTR) :]: value
            for key, value in extended.items()
            if key.startswith(_XATTR.encode())
        }
        if extended
        else {},
    )


def _number(field: bytes) -> int:
    """An octal field, or GNU's base 256. Raises InvalidInput."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        raise _damaged("a header has a negative number")
    text = field.split(b"\0")[0].strip(b" ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise _damaged("a header's number is not octal") from None


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise _damaged("an extended header's number is wrong")
    return int(text)


def _owner(text: bytes | None, field: bytes) -> int:
    number = _number(field) if text is None else _decimal(text)
    if number > 0xFFFFFFFF:
        raise _damaged("an owner's number is too large")
    return number


def _time(text: bytes | None, field: bytes) -> int:
    """Seconds; squashfs has 32 bits without sign, so what lies outside is cut off there."""
    if text is None:
        try:
            seconds = _number(field)
        except InvalidInput:
            seconds = 0
    else:
        try:
            seconds = int(float(text))
        except (ValueError, OverflowError):
            raise _damaged("a time is not a number") from None
    return max(0, min(seconds, 0xFFFFFFFF))


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a pax header: ``LENGTH KEY=VALUE\\n``."""
    position = 0
    while position < len(data) and data[position]:
        blank = data.find(b" ", position, position + 20)
        if blank < 0 or not data[position:blank].isdigit():
            raise _damaged("a pax record has no length")
        end = position + int(data[position:blank])
        if end > len(data) or end <= blank or data[end - 1 : end] != b"\n":
            raise _damaged("a pax record's length is wrong")
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not equals:
            raise _damaged("a pax record has no value")
        yield key, value
        position = end


def header(entry: Entry) -> bytes:
    """The header of an entry, with a pax header before it where ustar is too small."""
    records = [(_XATTR.encode() + key, value) for key, value in sorted(entry.xattrs.items())]
    name = entry.path + b"/" if entry.kind == FOLDER else entry.path
    if len(name) > 100:
        records.append((b"path", name))
    if len(entry.target) > 100:
        records.append((b"linkpath", entry.target))
    for key, value, most in (
        (b"size", entry.size, 8**11),
        (b"uid", entry.uid, 8**7),
        (b"gid", entry.gid, 8**7),
    ):
        if value >= most:
            records.append((key, str(value).encode()))
    raw = _ustar(entry, name)
    if not records:
        return raw
    data = b"".join(_record(key, value) for key, value in records)
    before = Entry(kind=b"x", path=b"pax", size=len(data))
    return _ustar(before, b"pax") + data + b"\0" * (-len(data) % BLOCK) + raw


def _ustar(entry: Entry, name: bytes) -> bytes:
    raw = b"%-100b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%-100bustar\00000%64b%07o\0%07o\0" % (
        name[:100].ljust(100, b"\0"),
        entry.mode,
        entry.uid if entry.uid < 8**7 else 0,
        entry.gid if entry.gid < 8**7 else 0,
        entry.size if entry.size < 8**11 else 0,
        entry.mtime if entry.mtime < 8**11 else 0,
        entry.kind,
        entry.target[:100].ljust(100, b"\0"),
        b"\0" * 64,
        entry.major,
        entry.minor,
    )
    raw = raw.ljust(BLOCK, b"\0")
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record; its length counts its own digits."""
    body = len(key) + len(value) + 3
    length = body + len(str(body))
    if len(str(length)) != len(str(body)):
        length = body + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _padded(size: int) -> int:
    return size + (-size % BLOCK)


def _damaged(why: str) -> InvalidInput:
    return InvalidInput("an archive is damaged or is no tar archive", details=why)


def _hostile(why: str, name: bytes) -> InvalidInput:
    shown = name[:80].decode("utf-8", "backslashreplace")
    return InvalidInput(
        f"an archive is refused: {why}",
        details=f"entry: {shown!r}",
        resolution="use an image from a source that you trust",
    )
