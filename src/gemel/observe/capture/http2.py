"""HTTP/2 without TLS, gRPC too. Frames are hyperframe's, headers hpack's."""

from __future__ import annotations

from hpack import Decoder
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)

from gemel.observe.capture import mask
from gemel.observe.capture.dialogue import Collector, Link, Lost
from gemel.observe.capture.records import Exchange

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Streams at once, bytes of a frame and of a head.
STREAMS, FRAME, HEAD = 4096, 1 << 20, 1 << 18
_GRPC = {
    0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND", 6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED",
    13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip


class _Call:
    """One stream."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.parts = (Collector(), Collector())
        self.ended = [False, False]
        self.grpc = ""


class _Side:
    """One direction: bytes that are not a whole frame yet, the state of header compression."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.skip = 0
        self.decoder = Decoder(max_header_list_size=HEAD)
        self.decoder.max_allowed_table_size = 1 << 16
        self.head = bytearray()
        self.head_of = 0
        self.head_ends = False
        self.discard = False


class Http2:
    """See Dialogue. greeted: the client's preface was seen already."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._sides = (_Side(), _Side())
        self._calls: dict[int, _Call] = {}
        self._greeted = False
        self.now = 0.0

    def data(self, client: bool, data: bytes, at: float) -> None:
        """See Dialogue. Raises Lost."""
        self.now = at
        index = 0 if client else 1
        side = self._sides[index]
        side.buffer += data
        if client and not self._greeted:
            if len(side.buffer) < len(PREFACE):
                return
            if not side.buffer.startswith(PREFACE):
                raise Lost("not HTTP/2")
            del side.buffer[: len(PREFACE)]
            self._greeted = True
        try:
            while self._frame(index, side):
                pass
        except (HPACKError, HyperframeError, ValueError, IndexError) as error:
            raise Lost(f"not HTTP/2: {str(error)[:80]}") from None

    def _frame(self, index: int, side: _Side) -> bool:
        if len(side.buffer) < 9:
            return False
        size = int.from_bytes(side.buffer[:3], "big")
        if size > FRAME:
            raise Lost("a frame of more than a mebibyte")
        if len(side.buffer) < 9 + size:
            return False
        frame, _ = Frame.parse_frame_header(memoryview(bytes(side.buffer[:9])))
        frame.parse_body(memoryview(bytes(side.buffer[9 : 9 + size])))
        del side.buffer[: 9 + size]
        self._take(index, side, frame, size)
        return True

    def _take(self, index: int, side: _Side, frame: Frame, size: int) -> None:
        if isinstance(frame, HeadersFrame | PushPromiseFrame):
            side.head_of = frame.stream_id
            side.head = bytearray(frame.data)
            side.head_ends = "END_STREAM" in frame.flags
            side.discard = isinstance(frame, PushPromiseFrame)
        elif isinstance(frame, ContinuationFrame):
            side.head += frame.data
            if len(side.head) > HEAD:
                raise Lost("a head of more than 256 KiB")
        elif isinstance(frame, DataFrame):
            self._body(index, frame)
            return
        elif isinstance(frame, RstStreamFrame):
            self._reset(frame)
            return
        elif isinstance(frame, SettingsFrame):
            return
        else:
            return
        if "END_HEADERS" in frame.flags:
            headers = side.decoder.decode(bytes(side.head))
            side.head.clear()
            if not side.discard:
                self._head(index, side, [(_text(k), _text(v)) for k, v in headers])

    def _call(self, stream: int, index: int) -> _Call | None:
        call = self._calls.get(stream)
        if call is None and index == 0:
            if len(self._calls) >= STREAMS:
                raise Lost("more calls than anybody answers")
            call = self._calls[stream] = _Call(self.link.exchange("h2", self.now))
        return call

    def _head(self, index: int, side: _Side, headers: list[tuple[str, str]]) -> None:
        call = self._call(side.head_of, index)
        if call is None:
            return
        exchange = call.exchange
        named = dict(headers)
        if index == 0 and ":method" in named:
            exchange.method = named[":method"][:32]
            exchange.path = mask.path(named.get(":path", "")[:4096])
            exchange.host = named.get(":authority", "")[:256]
            if named.get("content-type", "").startswith("application/grpc"):
                exchange.protocol = "grpc"
        if index == 1:
            if exchange.first_byte is None:
                exchange.first_byte = max(0.0, self.now - exchange.start)
            status = named.get(":status", "")
            if status.isdigit() and len(status) == 3 and not status.startswith("1"):
                exchange.status = int(status)
            call.grpc = named.get("grpc-status", call.grpc)
            exchange.message = named.get("grpc-message", exchange.message)[:256]
        for name, value in headers:
            if not name.startswith(":"):
                call.parts[index].header(name, value)
        self._end(index, side.head_of, call, side.head_ends)

    def _body(self, index: int, frame: DataFrame) -> None:
        call = self._calls.get(frame.stream_id)
        if call is not None:
            call.parts[index].body(frame.data)
            self._end(index, frame.stream_id, call, "END_STREAM" in frame.flags)

    def _end(self, index: int, stream: int, call: _Call, ends: bool) -> None:
        if ends:
            call.ended[index] = True
        if ends and index == 1:
            self._finish(stream, call)

    def _reset(self, frame: RstStreamFrame) -> None:
        call = self._calls.get(frame.stream_id)
        if call is not None and not call.ended[1]:
            self._finish(frame.stream_id, call, f"the stream was reset ({frame.error_code})")

    def _finish(self, stream: int, call: _Call, error: str = "") -> None:
        self._calls.pop(stream, None)
        exchange = call.exchange
        if exchange.protocol == "grpc" and call.grpc.isdigit() and len(call.grpc) < 4:
            code = int(call.grpc)
            exchange.failed = code != 0
            exchange.message = f"{_GRPC.get(code, code)} {exchange.message}".strip()
        exchange.request, exchange.response = call.parts[0].part(), call.parts[1].part()
        self.link.record(exchange, self.now, error)

    def gap(self, client: bool, size: int, at: float) -> None:
        """See Dialogue."""
        raise Lost(f"{size} bytes were missed")

    def ended(self, client: bool, at: float) -> None:
        """See Dialogue."""

    def closed(self, at: float, reset: bool) -> None:
        """See Dialogue."""
        self.now = at
        for stream, call in list(self._calls.items()):
            self._finish(stream, call, "closed without an answer")


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")
