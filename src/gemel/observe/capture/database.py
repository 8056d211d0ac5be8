"""PostgreSQL and Redis: which command, how long, how it ended. Raises dialogue.Lost."""

from __future__ import annotations

import struct
from collections import deque

from gemel.observe.capture import mask
from gemel.observe.capture.dialogue import Link, Lost, make_part
from gemel.observe.capture.http1 import Upgraded
from gemel.observe.capture.records import Exchange

#: Commands that wait; bytes of one that are kept; of a message that is looked into.
PENDING, TEXT, MESSAGE = 4096, 1024, 1 << 16
#: SSLRequest and GSSENCRequest.
_CRYPTO = (struct.pack("!II", 8, 80877103), struct.pack("!II", 8, 80877104))


class Messages:
    """Cuts a direction's bytes into messages; what is longer than MESSAGE is cut off."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.skip = 0

    def push(self, data: bytes) -> None:
        """More bytes; those of a message that is passed over are dropped."""
        if self.skip:
            passed = min(self.skip, len(data))
            self.skip -= passed
            data = data[passed:]
        self.buffer += data

    def take(self, size: int) -> bytes | None:
        """The next ``size`` bytes, cut off at MESSAGE; None if they are not there yet."""
        if len(self.buffer) < min(size, MESSAGE):
            return None
        got = bytes(self.buffer[: min(size, MESSAGE)])
        have = min(size, len(self.buffer))
        del self.buffer[:have]
        self.skip = size - have
        return got


class Postgres:
    """The frontend/backend protocol, version 3: simple and extended queries."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._sides = (Messages(), Messages())
        self._started = False
        self._pending: deque[Exchange] = deque()
        self._statements: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}

    def data(self, client: bool, data: bytes, at: float) -> None:
        """See Dialogue."""
        side = self._sides[0 if client else 1]
        side.push(data)
        if client and not self._started:
            self._startup(side)
        if not self._started:
            return
        while not side.skip and len(side.buffer) >= 5:
            kind, size = struct.unpack_from("!BI", side.buffer)
            if size < 4 or size > 1 << 30:
                raise Lost("not a PostgreSQL message")
            body = side.take(size + 1)
            if body is None:
                return
            if client:
                self._asked(kind, body[5:], at)
            else:
                self._answered(kind, body[5:], at)

    def _startup(self, side: Messages) -> None:
        while len(side.buffer) >= 8 and bytes(side.buffer[:8]) in _CRYPTO:
            del side.buffer[:8]  # answered by one byte
        if side.buffer[:2] == b"\x16\x03":
            raise Upgraded("tls", b"")
        if len(side.buffer) < 8:
            return
        size = struct.unpack_from("!I", side.buffer)[0]
        if size < 8 or size > 10000:
            raise Lost("not a PostgreSQL start")
        if len(side.buffer) < size:
            return
        del side.buffer[:size]
        self._started = True
        answers = self._sides[1].buffer
        if bytes(answers[:1]) in (b"N", b"S", b"G") and len(answers) < 5:
            del answers[:1]

    def _asked(self, kind: int, body: bytes, at: float) -> None:
        if kind == ord("Q"):
            self._begin(body.split(b"\0")[0].decode("utf-8", "replace"), at)
        elif kind == ord("P"):
            name, _, rest = body.partition(b"\0")
            if len(self._statements) < 1000:
                self._statements[name] = rest.split(b"\0")[0].decode("utf-8", "replace")[:TEXT]
        elif kind == ord("B"):
            portal, _, rest = body.partition(b"\0")
            if len(self._portals) < 1000:
                self._portals[portal] = self._statements.get(rest.partition(b"\0")[0], "?")
        elif kind == ord("E"):
            self._begin(self._portals.get(body.partition(b"\0")[0], "?"), at)

    def _begin(self, text: str, at: float) -> None:
        if len(self._pending) >= PENDING:
            raise Lost("more commands than anybody answers")
        exchange = self.link.exchange("postgres", at)
        words = text.split(None, 1)
        exchange.method = words[0].upper()[:32] if words else "?"
        exchange.path = mask.sql(text[:TEXT])
        exchange.request.size = len(text)
        self._pending.append(exchange)

    def _answered(self, kind: int, body: bytes, at: float) -> None:
        if not self._pending:
            return
        exchange = self._pending[0]
        if exchange.first_byte is None:
            exchange.first_byte = max(0.0, at - exchange.start)
        exchange.response.size += len(body)
        if kind in (ord("C"), ord("I"), ord("s")):
            exchange.message = body.partition(b"\0")[0].decode("utf-8", "replace")[:128]
            self._finish(at)
        elif kind == ord("E"):
            fields = {f[:1]: f[1:].decode("utf-8", "replace") for f in body.split(b"\0") if f}
            exchange.message = f"{fields.get(b'C', '')} {fields.get(b'M', '')}".strip()[:256]
            exchange.failed = True
            self._finish(at)
        elif kind == ord("Z"):  # ready: what was asked after an error was passed over
            while self._pending:
                self._pending[0].message = "skipped"
                self._finish(at)

    def _finish(self, at: float) -> None:
        self.link.record(self._pending.popleft(), at)

    def gap(self, client: bool, size: int, at: float) -> None:
        """See Dialogue."""
        raise Lost(f"{size} bytes were missed")

    def ended(self, client: bool, at: float) -> None:
        """See Dialogue."""

    def closed(self, at: float, reset: bool) -> None:
        """See Dialogue."""
        while self._pending:
            exchange = self._pending.popleft()
            self.link.record(exchange, at, "closed without an answer")


class Redis:
    """RESP 2 and 3."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._asks = _Resp()
        self._answers = _Resp()
        self._pending: deque[Exchange] = deque()

    def data(self, client: bool, data: bytes, at: float) -> None:
        """See Dialogue."""
        if client:
            for value in self._asks.push(data):
                self._begin(value, at)
            return
        if self._pending and self._pending[0].first_byte is None:
            self._pending[0].first_byte = max(0.0, at - self._pending[0].start)
        for value in self._answers.push(data):
            if value.kind == ord(">"):
                continue  # pushed, not asked for
            if not self._pending:
                raise Lost("an answer that nobody asked for")
            exchange = self._pending.popleft()
            exchange.response = make_part(value.text, value.size, value.size > len(value.text))
            if value.kind in (ord("-"), ord("!")):
                exchange.failed = True
                exchange.message = value.text[:256].decode("utf-8", "replace")
            self.link.record(exchange, at)

    def _begin(self, value: _Value, at: float) -> None:
        if len(self._pending) >= PENDING:
            raise Lost("more commands than anybody answers")
        words = [w.decode("utf-8", "replace") for w in value.words] or ["?"]
        exchange = self.link.exchange("redis", at)
        exchange.method = words[0].upper()[:32]
        if exchange.method in ("AUTH", "HELLO", "ACL", "CONFIG") and len(words) > 1:
            words[1:] = [mask.HIDDEN]
        exchange.path = mask.body(" ".join(words))[:TEXT]
        exchange.request.size = value.size
        if exchange.method not in ("SUBSCRIBE", "PSUBSCRIBE", "MONITOR"):
            self._pending.append(exchange)
        else:
            self.link.record(exchange, at)
            raise Lost("a subscription")

    def gap(self, client: bool, size: int, at: float) -> None:
        """See Dialogue."""
        raise Lost(f"{size} bytes were missed")

    def ended(self, client: bool, at: float) -> None:
        """See Dialogue."""

    def closed(self, at: float, reset: bool) -> None:
        """See Dialogue."""
        while self._pending:
            self.link.record(self._pending.popleft(), at, "closed without an answer")


class _Value:
    """A whole value: its kind (first byte), the first words of it, its size in bytes."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.words: list[bytes] = []
        self.size = 0

    @property
    def text(self) -> bytes:
        """The words in one."""
        return b" ".join(self.words)[:TEXT]


class _Resp:
    """Cuts RESP into whole values without keeping them, whatever their size and depth."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._value: _Value | None = None
        self._left = 0
        """Values that are to come until the present one is whole."""
        self._skip = 0

    def push(self, data: bytes) -> list[_Value]:
        """More bytes; gives back the values that are whole now. Raises Lost."""
        done: list[_Value] = []
        self._buffer += data
        while self._buffer:
            if self._skip:
                passed = min(self._skip, len(self._buffer))
                del self._buffer[:passed]
                self._skip -= passed
                if self._skip:
                    break
            elif not self._item():
                break
            if not self._skip and self._value is not None and self._left == 0:
                done.append(self._value)
                self._value = None
        return done

    def _item(self) -> bool:
        """Takes one line (and a string's bytes). False: it is not whole yet."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MESSAGE:
                raise Lost("not Redis")
            return False
        line = bytes(self._buffer[:end])
        kind = line[0] if line else 0
        if kind in b"$!=" and kind and not self._is_there(line, end):
            return False
        if self._value is None:
            self._value, self._left = _Value(kind), 1
        self._left -= 1
        if kind in b"$!=" and kind:
            self._string(line, end)
            return True
        self._value.size += end + 2
        del self._buffer[: end + 2]
        if kind in b"*~%>|" and kind:
            count = _number(line)
            self._left += max(0, count) * (2 if kind in b"%|" else 1) + (kind == ord("|"))
        elif kind in b"+-:_,#(" and kind:
            self._keep(line[1:])
        elif self._value.kind == kind and self._left == 0:  # an inline command
            self._value.words = line.split()[:16]
        else:
            raise Lost("not Redis")
        return True

    def _is_there(self, line: bytes, end: int) -> bool:
        """Whether as much of a string is there as is kept of it."""
        size = _number(line)
        return size < 0 or len(self._buffer) >= end + 2 + min(size + 2, TEXT)

    def _string(self, line: bytes, end: int) -> None:
        assert self._value is not None
        size = _number(line)
        total = end + 2 + (size + 2 if size >= 0 else 0)
        self._keep(bytes(self._buffer[end + 2 : end + 2 + max(0, min(size, TEXT))]))
        self._value.size += total
        have = min(total, len(self._buffer))
        del self._buffer[:have]
        self._skip = total - have

    def _keep(self, word: bytes) -> None:
        assert self._value is not None
        if len(self._value.words) < 16:
            self._value.words.append(word[:TEXT])


def _number(line: bytes) -> int:
    text = line[1:]
    if len(text) > 12 or not text.lstrip(b"-").isdigit():
        raise Lost("not Redis")
    return int(text)
