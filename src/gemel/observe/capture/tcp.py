"""One direction of a TCP connection, put in order. Pure and bounded.

Bytes come from hosts that may lie: any sequence of segments ends in some
sequence of bytes and gaps, never in an error, and never holds more than
``HELD`` bytes back.
"""

from __future__ import annotations

#: Bytes and segments that wait for one before them; with more, that one is given up.
HELD, SEGMENTS = 1 << 18, 256
#: Bytes ahead of what is expected that are believed.
WINDOW = 1 << 24
_SPACE = 1 << 32
_HALF = 1 << 31


class Gap(int):
    """So many bytes are missing here."""


Piece = bytes | Gap


def ahead(a: int, b: int) -> int:
    """How far sequence number ``a`` is beyond ``b`` (negative: before it)."""
    return ((a - b + _HALF) % _SPACE) - _HALF


class Stream:
    """See the module. Sequence numbers are modulo 2**32."""

    def __init__(self) -> None:
        self.next: int | None = None
        self.ended = False
        self._end: int | None = None
        self._waiting: dict[int, bytes] = {}
        self._held = 0

    @property
    def waits(self) -> bool:
        """Whether segments wait for one before them."""
        return bool(self._waiting)

    def begin(self, sequence: int) -> None:
        """A SYN with this number."""
        self.next = (sequence + 1) % _SPACE

    def push(self, sequence: int, data: bytes) -> list[Piece]:
        """Takes a segment; gives back what is in order now."""
        if self.next is None:
            self.next = sequence
        if sequence == self.next and not self._waiting:  # nearly always
            self.next = (sequence + len(data)) % _SPACE
            self._check_end()
            return [data] if data else []
        far = ahead(sequence, self.next)
        if not data or far > WINDOW or far < -WINDOW or far + len(data) <= 0:
            return []
        if len(data) > len(self._waiting.get(sequence, b"")):
            self._held += len(data) - len(self._waiting.get(sequence, b""))
            self._waiting[sequence] = data
        pieces = self._drain()
        if self._held > HELD or len(self._waiting) > SEGMENTS:
            pieces += self._skip()
        return pieces

    def acknowledged(self, number: int) -> list[Piece]:
        """The other side has everything before ``number``: what we miss will not come again."""
        if not self._waiting or self.next is None or ahead(number, self.next) <= 0:
            return []
        first = min(self._waiting, key=lambda s: ahead(s, self.next or 0))
        return self._skip() if ahead(number, first) >= 0 else []

    def end(self, sequence: int) -> None:
        """A FIN behind the byte before ``sequence``."""
        self._end = sequence % _SPACE
        if self.next is None:
            self.next = self._end
        self._check_end()

    def flush(self) -> list[Piece]:
        """Everything that waits, with the gaps before it: the connection is over."""
        pieces: list[Piece] = []
        while self._waiting:
            pieces += self._skip()
        return pieces

    def _check_end(self) -> None:
        if self._end is not None and self.next is not None and ahead(self.next, self._end) >= 0:
            self.ended = True

    def _skip(self) -> list[Piece]:
        """Gives up what is missing before the first segment that waits."""
        assert self.next is not None
        expected = self.next
        first = min(self._waiting, key=lambda s: ahead(s, expected))
        size = ahead(first, expected)
        if size <= 0:
            return self._drain()
        self.next = first
        return [Gap(size), *self._drain()]

    def _drain(self) -> list[Piece]:
        pieces: list[Piece] = []
        while self._waiting:
            expected = self.next or 0
            first = min(self._waiting, key=lambda s: ahead(s, expected))
            far = ahead(first, expected)
            if far > 0:
                break
            data = self._waiting.pop(first)
            self._held -= len(data)
            if len(data) + far > 0:
                pieces.append(data[-far:] if far else data)
                self.next = (first + len(data)) % _SPACE
        self._check_end()
        return pieces
