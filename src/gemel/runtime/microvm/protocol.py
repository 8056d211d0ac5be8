"""Frames and records between host and guest, as docs/guest-protocol.md has them.

Pure: bytes in, values out. What comes from the guest is hostile; whatever
breaks a rule raises ProtocolError, and no input makes the decoder keep more
than one frame.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gemel.errors import Failed

VERSION = 1
PORT_NAME = "gemel.agent"
HEADER = struct.Struct("<IIBBH")
PAYLOAD_MAX = 65536
MESSAGE_MAX = 8 << 20
WINDOW = 262144
CREDIT_MAX = 0x7FFFFFFF

LAST = 1
"""Flag: the last frame of a split message."""
ALL = 1
"""Flag of SIGNAL: to every process of the service."""

CONTROL = 0
SERVICE = 1
FIRST_EXEC = 2

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")


class ProtocolError(Failed):
    """The peer broke a rule of the protocol; the connection is of no more use."""

    def __init__(self, details: str) -> None:
        super().__init__("the guest's agent broke the protocol", details)


class ToGuest(enum.IntEnum):
    """Types of frames from host to guest."""

    CONFIG = 1
    START = 2
    EXEC = 3
    STDIN = 4
    STDIN_EOF = 5
    RESIZE = 6
    SIGNAL = 7
    CREDIT = 8
    SHUTDOWN = 9
    PING = 10
    USAGE = 11
    FREEZE = 12
    THAW = 13
    CLOSE = 14
    PROCESSES = 15
    PREPARE = 16
    CHANGED = 17
    CLOCK = 18
    IDENTITY = 19
    REHEARSE = 20


class FromGuest(enum.IntEnum):
    """Types of frames from guest to host."""

    HELLO = 65
    READY = 66
    STARTED = 67
    STDOUT = 68
    STDERR = 69
    EXIT = 70
    ERROR = 71
    CREDIT = 72
    PONG = 73
    USAGE = 74
    LOG = 75
    FROZEN = 76
    PROCESSES = 77
    CLOCK = 78
    OFF = 79


class ErrorKind(enum.IntEnum):
    """Why a program did not start."""

    NOT_FOUND = 1
    NOT_RUNNABLE = 2
    FAILED = 3


class Frame(msgspec.Struct, frozen=True):
    """One frame. type: a number of ToGuest or FromGuest."""

    session: int
    type: int
    payload: bytes = b""
    flags: int = 0


def encode(session: int, type: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame as bytes. Raises ValueError if the payload is too long."""
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes is over {PAYLOAD_MAX}")
    return HEADER.pack(len(payload), session, type, flags, 0) + payload


class Decoder:
    """Takes bytes as they come, gives whole frames. Keeps less than one frame in between.

    accepted: the types that this side may be sent; any other raises ProtocolError.
    """

    def __init__(self, accepted: Iterable[int] = tuple(FromGuest)) -> None:
        self._accepted = frozenset(int(type) for type in accepted)
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes. Raises ProtocolError."""
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            length, session, type, flags, zero = HEADER.unpack_from(self._buffer, start)
            if length > PAYLOAD_MAX:
                raise ProtocolError(f"a frame of {length} bytes")
            if type not in self._accepted:
                raise ProtocolError(f"a frame of unknown type {type}")
            if zero:
                raise ProtocolError("a frame whose reserved bytes are not zero")
            end = start + HEADER.size + length
            if end > len(self._buffer):
                break
            payload = bytes(self._buffer[start + HEADER.size : end])
            frames.append(Frame(session, type, payload, flags))
            start = end
        del self._buffer[:start]
        return frames


Text = str | bytes
Record = Sequence[Text]


def encode_records(records: Iterable[Record]) -> bytes:
    """Records as bytes. Raises ValueError for an empty record."""
    parts: list[bytes] = []
    for record in records:
        if not 1 <= len(record) <= 0xFFFF:
            raise ValueError("a record has between 1 and 65535 strings")
        parts.append(_U16.pack(len(record)))
        for text in record:
            raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            parts.append(_U32.pack(len(raw)))
            parts.append(raw)
    return b"".join(parts)


def decode_records(data: bytes) -> list[list[bytes]]:
    """The records in ``data``. Raises ProtocolError unless it holds whole records only."""
    records: list[list[bytes]] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ProtocolError("a record is cut short")
        (count,) = _U16.unpack_from(data, at)
        at += 2
        if count == 0:
            raise ProtocolError("a record without a key")
        record: list[bytes] = []
        for _ in range(count):
            if at + 4 > len(data):
                raise ProtocolError("a record is cut short")
            (length,) = _U32.unpack_from(data, at)
            at += 4
            if length > len(data) - at:
                raise ProtocolError("a string of a record is cut short")
            record.append(data[at : at + length])
            at += length
        records.append(record)
    return records


def message(session: int, type: ToGuest, records: Iterable[Record]) -> Iterator[bytes]:
    """The frames of a CONFIG, START or EXEC. Raises ValueError over MESSAGE_MAX bytes."""
    data = encode_records(records)
    if len(data) > MESSAGE_MAX:
        raise ValueError(f"a message of {len(data)} bytes is over {MESSAGE_MAX}")
    for start in range(0, max(len(data), 1), PAYLOAD_MAX):
        chunk = data[start : start + PAYLOAD_MAX]
        last = start + PAYLOAD_MAX >= len(data)
        yield encode(session, type, chunk, LAST if last else 0)


def encode_u32(value: int) -> bytes:
    """Payload of SIGNAL and CREDIT."""
    return _U32.pack(value)


def encode_size(rows: int, columns: int) -> bytes:
    """Payload of RESIZE; out of range is clamped."""
    return struct.pack("<HH", min(max(rows, 0), 0xFFFF), min(max(columns, 0), 0xFFFF))


def decode_u32(payload: bytes, *, rest: bool = False) -> int:
    """Payload of STARTED and CREDIT (and HELLO, with ``rest``). Raises ProtocolError."""
    if len(payload) < 4 or (len(payload) > 4 and not rest):
        raise ProtocolError(f"{len(payload)} bytes where a number of 4 is expected")
    value: int = _U32.unpack_from(payload)[0]
    return value


def decode_credit(payload: bytes, outstanding: int) -> int:
    """The new credit after a CREDIT on top of ``outstanding``. Raises ProtocolError."""
    credit = outstanding + decode_u32(payload)
    if credit > CREDIT_MAX:
        raise ProtocolError("more credit than may be given")
    return credit


def decode_exit(payload: bytes) -> tuple[int, bool]:
    """(status, killed for want of memory). Raises ProtocolError."""
    if len(payload) != 5:
        raise ProtocolError("an EXIT that is not 5 bytes long")
    status, oom = struct.unpack("<IB", payload)
    if status > 255:
        raise ProtocolError(f"an exit status of {status}")
    return status, oom != 0


def decode_error(payload: bytes) -> tuple[ErrorKind, str]:
    """(kind, text). Raises ProtocolError."""
    if not payload or payload[0] not in tuple(ErrorKind):
        raise ProtocolError("an ERROR of an unknown kind")
    return ErrorKind(payload[0]), payload[1:].decode("utf-8", "replace")


def decode_usage(payload: bytes) -> dict[str, int]:
    """The numbers of a USAGE. Lines that are none are left out; numbers are clamped to 2^63-1."""
    usage: dict[str, int] = {}
    for line in payload.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        if key and value.isascii() and value.isdigit() and len(value) < 21:
            usage[key] = min(int(value), 2**63 - 1)
    return usage


class GuestProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the service, as the guest tells of it."""

    pid: int
    parent: int
    uid: int
    user: str
    state: str
    cpu_ns: int
    started: int
    """Seconds since the epoch."""
    resident: int
    """Bytes."""
    terminal: str
    command: str


def decode_processes(payload: bytes) -> list[GuestProcess]:
    """The lines of a whole PROCESSES answer. Raises ProtocolError for a line that is none."""
    found: list[GuestProcess] = []
    for line in payload.decode("utf-8", "replace").split("\n"):
        if not line:
            continue
        fields = line.split("\t", 9)
        numbers = [fields[i] for i in (0, 1, 2, 5, 6, 7)] if len(fields) == 10 else [""]
        if not all(text.isascii() and text.isdigit() and len(text) < 21 for text in numbers):
            raise ProtocolError("a line of PROCESSES that is none")
        found.append(
            GuestProcess(
                pid=int(fields[0]),
                parent=int(fields[1]),
                uid=int(fields[2]),
                user=fields[3],
                state=fields[4],
                cpu_ns=int(fields[5]),
                started=int(fields[6]),
                resident=int(fields[7]),
                terminal=fields[8],
                command=fields[9],
            )
        )
    return found
