"""HTTP/1: requests and responses of one connection, paired. The parsing is httptools'."""

from __future__ import annotations

import re
from collections import deque
from typing import NoReturn

import httptools

from gemel.observe.capture import mask
from gemel.observe.capture.dialogue import Collector, Link, Lost
from gemel.observe.capture.records import Exchange

#: Bytes of a head before the connection is given up; requests that wait for an answer.
HEAD_LIMIT, PENDING = 1 << 18, 1024
_PATH = 4096
#: Header of an answer that a fault has touched, with its number.
_FAULT = b"x-gemel-fault"
_LINE = re.compile(rb"([A-Z]{1,16}) ([^\s]+)")
#: Bytes that may follow a request to upgrade before its answer.
_UPGRADE_HELD = 1 << 16


class Upgraded(Exception):
    """The connection speaks another protocol from now on. rest: what the server said in it."""

    def __init__(self, protocol: str, rest: bytes) -> None:
        super().__init__(protocol)
        self.protocol, self.rest = protocol, rest


class _Asked:
    """A request that has begun, and what is known of its answer."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.request = Collector()
        self.response = Collector()
        self.whole = False
        self.answered = 0.0
        """When its answer was whole; 0 before."""


class _Side:
    """httptools' callbacks for one direction."""

    def __init__(self, owner: Http1) -> None:
        self.owner = owner
        self.head = 0
        """Bytes of the head so far."""
        self.inside = False
        """Between the begin and the end of a message."""
        self.in_head = False

    def on_message_begin(self) -> None:
        self.inside = self.in_head = True
        self.head = 0

    def on_headers_complete(self) -> None:
        self.in_head = False


class _Requests(_Side):
    asked: _Asked | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.asked = self.owner.ask()

    def on_url(self, url: bytes) -> None:
        if self.asked is not None and len(self.asked.exchange.path) < _PATH:
            self.asked.exchange.path += url[:_PATH].decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.asked is not None:
            if len(name) == 4 and name.lower() == b"host":
                self.asked.exchange.host = value[:256].decode("latin-1")
            self.asked.request.raw_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.asked is not None:
            self.asked.exchange.path = mask.path(self.asked.exchange.path[:_PATH])
            self.asked.exchange.method = self.owner.requests.get_method().decode("latin-1")

    def on_body(self, body: bytes) -> None:
        if self.asked is not None:
            self.asked.request.body(body)

    def on_message_complete(self) -> None:
        self.inside = False
        if self.asked is not None:
            self.asked.whole = True
            self.owner.finish_if_done(self.asked)
        self.asked = None


class _Responses(_Side):
    reason = ""

    @property
    def asked(self) -> _Asked | None:
        """The request that is answered now."""
        return self.owner.pending[0] if self.owner.pending else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.reason = ""
        asked = self.asked
        if asked is not None:
            if asked.exchange.first_byte is None:
                asked.exchange.first_byte = max(0.0, self.owner.now - asked.exchange.start)
            asked.response = Collector()

    def on_status(self, status: bytes) -> None:
        self.reason += status[:128].decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        asked = self.asked
        if asked is not None:
            asked.response.raw_header(name, value)
            if len(name) == len(_FAULT) and name.lower() == _FAULT:
                asked.exchange.fault = value[:9].decode("latin-1")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        asked = self.asked
        if asked is not None:
            asked.exchange.status = self.owner.responses.get_status_code()
            asked.exchange.message = self.reason

    def on_body(self, body: bytes) -> None:
        asked = self.asked
        if asked is not None:
            asked.response.body(body)

    def on_message_complete(self) -> None:
        self.inside = False
        asked = self.asked
        if asked is None:
            return
        status = asked.exchange.status or 0
        if 100 <= status < 200 and status != 101:
            asked.exchange.status = None  # an interim answer; the one that counts comes
            return
        self.owner.answered()


class Http1:
    """See dialogue.Dialogue. Raises Lost, and Upgraded when the protocol changes."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.now = 0.0
        self.pending: deque[_Asked] = deque()
        self._unfinished: list[_Asked] = []
        self._asks = _Requests(self)
        self._answers = _Responses(self)
        self.requests = httptools.HttpRequestParser(self._asks)
        self.responses = httptools.HttpResponseParser(self._answers)
        self._deaf = False
        """The requests cannot be read any more."""
        self._held: bytearray | None = None
        """Bytes behind a request to upgrade, until it is answered."""
        self._last: _Asked | None = None
        """The one that was answered last."""
        self._head = bytearray()
        """The head of an answer to HEAD, until it is whole."""

    # --- called by the callbacks ------------------------------------------------------

    def ask(self) -> _Asked:
        if len(self.pending) >= PENDING:
            raise Lost("more requests than anybody answers")
        asked = _Asked(self.link.exchange("http", self.now))
        self.pending.append(asked)
        return asked

    def answered(self) -> None:
        """The first request that waits has its whole answer."""
        asked = self.pending.popleft()
        asked.answered = self.now
        self._last = asked
        if asked.whole:
            self._record(asked)
        else:  # answered before it was asked to the end
            self._unfinished.append(asked)

    def finish_if_done(self, asked: _Asked) -> None:
        if asked in self._unfinished:
            self._unfinished.remove(asked)
            self._record(asked)

    def _record(self, asked: _Asked, error: str = "") -> None:
        exchange = asked.exchange
        exchange.request, exchange.response = asked.request.part(), asked.response.part()
        self.link.record(exchange, asked.answered or self.now, error)

    # --- Dialogue ---------------------------------------------------------------------

    def data(self, client: bool, data: bytes, at: float) -> None:
        self.now = at
        if client:
            if not self._deaf:
                self._feed_request(data)
        else:
            self._feed_response(data)

    def _feed_request(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
            if len(self._held) > _UPGRADE_HELD:
                raise Lost("too much before the answer to an upgrade")
            return
        try:
            self.requests.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._held = bytearray(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(data, f"not an HTTP request: {str(error)[:80]}")
        if self._asks.in_head:
            self._asks.head += len(data)
            if self._asks.head > HEAD_LIMIT:
                self._refuse(data, "a head of more than 256 KiB")

    def _refuse(self, data: bytes, why: str) -> None:
        """What is asked cannot be read; the server says what it makes of it."""
        self._deaf = True
        asked, self._asks.asked = self._asks.asked, None
        if asked is None or asked.whole:
            asked = self.ask()
        found = _LINE.match(data)
        if asked.exchange.path:
            asked.exchange.method = self.requests.get_method().decode("latin-1")
        elif found:
            asked.exchange.method = found[1].decode("latin-1")
            asked.exchange.path = mask.path(found[2][:_PATH].decode("latin-1"))
        asked.exchange.error = why
        asked.whole = True

    def _feed_response(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if self._answers.inside or self._is_plain():
                left = self._feed_plain(left)
            else:
                left = self._feed_head(left)

    def _is_plain(self) -> bool:
        return not (self.pending and self.pending[0].exchange.method in ("HEAD", "CONNECT"))

    def _feed_plain(self, data: memoryview) -> memoryview:
        """Feeds an answer's bytes; gives back those that are not for the same parser."""
        if not self.pending and not self._answers.inside:
            # an answer to nothing: 408 of a server that has waited long enough, or bytes missed
            raise Lost("an answer that nobody asked for")
        rest = data[len(data) :]
        if len(self.pending) > 1 and any(
            a.exchange.method in ("HEAD", "CONNECT") for a in self.pending
        ):
            # pipelined behind others: the parser must not run past the answer before it
            data, rest = data[:1], data[1:]
        try:
            self.responses.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._upgrade(bytes(data[stop.args[0] :]) + bytes(rest))
        except httptools.HttpParserError as error:
            raise self._broken(error, "response") from None
        self._check_head(self._answers, len(data))
        self._check_upgrade()
        return rest

    def _feed_head(self, data: memoryview) -> memoryview:
        """An answer to HEAD or CONNECT ends with its head, whatever the head says."""
        before = len(self._head)
        self._head += data
        end = self._head.find(b"\r\n\r\n", max(0, before - 3))
        if end < 0:
            if len(self._head) > HEAD_LIMIT:
                raise Lost("a head of more than 256 KiB")
            return data[len(data) :]
        head, rest = bytes(self._head[: end + 4]), data[end + 4 - before :]
        self._head.clear()
        asked = self.pending[0]
        self.responses = httptools.HttpResponseParser(self._answers)
        try:
            self.responses.feed_data(head)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            if asked.exchange.status is None:
                raise self._broken(error, "response") from None
        self.responses = httptools.HttpResponseParser(self._answers)
        self._answers.inside = False
        if asked.answered or asked.exchange.status is None:
            return rest  # whole by itself (304), or interim
        status, method = asked.exchange.status, asked.exchange.method
        self.answered()
        if method == "CONNECT" and 200 <= status < 300:
            raise Upgraded("tcp", bytes(rest))
        self._resume()
        return rest

    def _check_head(self, side: _Side, size: int) -> None:
        if side.in_head:
            side.head += size
            if side.head > HEAD_LIMIT:
                raise Lost("a head of more than 256 KiB")

    def _upgrade(self, rest: bytes) -> NoReturn:
        """The parser of answers says that the protocol changes."""
        asked = self._last
        name = "tcp"
        if asked is not None:
            named = {k.lower(): v.lower() for k, v in asked.response.headers}
            name = {"websocket": "websocket", "h2c": "h2"}.get(named.get("upgrade", ""), "tcp")
        raise Upgraded(name, rest)

    def _check_upgrade(self) -> None:
        """An answer other than 101 to a request to upgrade: all goes on as before."""
        if self._held is not None and not self._answers.inside and not self.pending:
            self._resume()

    def _resume(self) -> None:
        if self._held is not None:
            held, self._held = bytes(self._held), None
            if held:
                self._feed_request(held)

    def _broken(self, error: Exception, what: str) -> Lost:
        return Lost(f"not an HTTP {what}: {str(error)[:80]}")

    def gap(self, client: bool, size: int, at: float) -> None:
        self.now = at
        raise Lost(f"{size} bytes were missed")

    def ended(self, client: bool, at: float) -> None:
        """Answers without a length go on until the server ends."""
        self.now = at
        if client or not self._answers.inside or not self.pending:
            return
        asked = self.pending[0]
        if asked.exchange.status is None or self._answers.in_head:
            return
        names = {name.lower() for name, _ in asked.response.headers}
        self._answers.inside = False
        if names & {"content-length", "transfer-encoding"}:
            self.pending.popleft()
            self._record(asked, "the answer was broken off")
        else:
            self.answered()

    def closed(self, at: float, reset: bool) -> None:
        self.now = at
        if not reset:
            self.ended(False, at)
        self.give_up("the connection was reset" if reset else "closed without an answer")

    def give_up(self, why: str) -> None:
        """Records what has begun and will not be seen to its end."""
        if not self.pending and not self._unfinished:
            return
        for asked in (*self._unfinished, *self.pending):
            asked.exchange.method = asked.exchange.method or "?"
            asked.exchange.path = mask.path(asked.exchange.path[:_PATH])
            seen = asked.answered and asked.exchange.status
            self._record(asked, "" if seen else asked.exchange.error or why)
        self._unfinished.clear()
        self.pending.clear()
