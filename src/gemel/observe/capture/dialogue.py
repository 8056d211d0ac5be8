"""What a connection says, whatever its protocol: the common part of all parsers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from gemel.observe.capture import mask
from gemel.observe.capture.records import BODIES, BODY, HEADERS, Exchange, Part, Peer


class Dialogue(Protocol):
    """A parser of one connection. client: whether the bytes come from who connected."""

    def data(self, client: bool, data: bytes, at: float) -> None:
        """Bytes in order, seen at that time."""

    def gap(self, client: bool, size: int, at: float) -> None:
        """So many bytes were missed."""

    def closed(self, at: float, reset: bool) -> None:
        """The connection is over."""

    def ended(self, client: bool, at: float) -> None:
        """One side says no more."""


class Lost(Exception):
    """This parser cannot follow the connection any further; the text says why."""


class Link:
    """What a parser needs of the connection that it reads."""

    def __init__(
        self,
        number: int,
        source: Peer,
        target: Peer,
        record: Callable[[Exchange], None],
    ) -> None:
        self.number = number
        self.source = source
        self.target = target
        self._record = record
        self._carried: tuple[Peer, str, bool] | None = None

    def carry(self, target: Peer, fault: int, once: bool) -> None:
        """A proxy carries this connection on to that instance: all calls, or (once) this one."""
        self._carried = target, str(fault or ""), once

    def exchange(self, protocol: str, at: float) -> Exchange:
        """A new one that begins now."""
        return Exchange("", protocol, at, self.source, self.target, connection=self.number)

    def record(self, exchange: Exchange, at: float, error: str = "") -> None:
        """It is over."""
        exchange.duration = max(0.0, at - exchange.start)
        if error:
            exchange.error = error
        if exchange.error or (exchange.status or 0) >= 500:
            exchange.failed = True
        if self._carried is not None:
            exchange.target, exchange.carried, once = self._carried
            if once:
                self._carried = None
        self._record(exchange)


class Room:
    """How many bytes of a body are kept: more while somebody asks for whole ones."""

    def __init__(self) -> None:
        self.body = BODY
        self._asked: list[int] = []

    def ask(self, bodies: int) -> None:
        """Somebody wants so many; ``BODIES`` at most."""
        self._asked.append(min(bodies, BODIES))
        self.body = max(BODY, *self._asked)

    def let_go(self, bodies: int) -> None:
        """And no longer."""
        self._asked.remove(min(bodies, BODIES))
        self.body = max([BODY, *self._asked])


room = Room()


class Collector:
    """Headers and the start of a body of one message, bounded."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.size = 0
        self._room = HEADERS
        self._body = bytearray()
        self._cut = False

    def header(self, name: str, value: str) -> None:
        """One header; its secrets are hidden here."""
        self._room -= len(name) + len(value)
        if self._room < 0:
            self._cut = True
            return
        self.headers.append((name, mask.header(name, value)))

    def raw_header(self, name: bytes, value: bytes) -> None:
        """The same of bytes: most are as they were in the message before."""
        self._room -= len(name) + len(value)
        if self._room < 0:
            self._cut = True
            return
        short = len(name) + len(value) <= mask.SHORT
        self.headers.append(_short_shown(name, value) if short else _shown(name, value))

    def body(self, data: bytes) -> None:
        """More of the body."""
        self.size += len(data)
        left = room.body - len(self._body)
        if left > 0:
            self._body += data[:left]
        self._cut = self._cut or len(data) > left

    def missed(self, size: int) -> None:
        """Bytes of the body that were not seen."""
        self.size += size
        self._cut = True

    def part(self) -> Part:
        """What was collected."""
        return make_part(bytes(self._body), self.size, self._cut, self.headers)


def _shown(name: bytes, value: bytes) -> tuple[str, str]:
    """A header as text, its secrets hidden."""
    text = name.decode("latin-1")
    return text, mask.header(text, value.decode("latin-1"))


_short_shown = lru_cache(maxsize=4096)(_shown)


def make_part(
    raw: bytes, size: int, cut: bool, headers: list[tuple[str, str]] | None = None
) -> Part:
    """A part whose body is text where it can be."""
    text, binary = "", False
    if raw:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            # a character that is cut off at the end does not make it binary
            if cut and error.start >= len(raw) - 3:
                text = raw[: error.start].decode("utf-8")
            else:
                binary = True
        if binary or "\0" in text:
            text, binary = base64.b64encode(raw).decode(), True
        else:
            text = mask.body(text)
    return Part(headers or [], text, size, binary, cut)
