"""HTTP/1.1 over a unix socket, as much as the engine's API needs.

Written on ``socket`` alone: http.client brings the email package and ssl with
it, 40 ms of a budget of 100 for a whole command. A connection serves one
request, so any number of threads may call at once.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gemel.client.errors import EngineDown, EngineHung, from_answer
from gemel.errors import Failed

#: Seconds that a call may take when the caller names no deadline.
DEFAULT_TIMEOUT = 60.0
_CHUNK = 65536
_MAX_LINE = 65536

Json = dict[str, Any]
Body = Json | list[Any] | bytes | Iterable[bytes] | None
Query = Mapping[str, Any]


def quote(text: str, safe: str = "/:") -> str:
    """Percent-encodes a path or a query's value."""
    keep = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" + safe.encode()
    return "".join(
        chr(c) if c in keep else f"%{c:02X}" for c in text.encode("utf-8", "surrogateescape")
    )


def encode_query(query: Query | None) -> str:
    """``?a=b&c=d``; None leaves a key out, booleans are 1 and 0, dicts JSON, lists repeat."""
    pairs: list[str] = []
    for key, value in (query or {}).items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        for one in values:
            if isinstance(one, bool):
                one = int(one)
            text = json.dumps(one) if isinstance(one, dict) else str(one)
            pairs.append(f"{key}={quote(text)}")
    return "?" + "&".join(pairs) if pairs else ""


class Wire:
    """A connected socket with a buffer in front and a deadline for all that is read."""

    def __init__(self, path: str, timeout: float | None) -> None:
        self.buffer = bytearray()
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10.0 if timeout is None else min(timeout, 10.0))
        try:
            self.sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self.sock.close()
            raise EngineDown(
                "the engine is not running", details=f"{path}: {error.strerror}"
            ) from error
        except PermissionError as error:
            self.sock.close()
            raise EngineDown(
                f"no permission to use {path}",
                resolution="run as root, or be a member of the group `gemel`"
                " (usermod -aG gemel USER, then log in again)",
            ) from error
        except (TimeoutError, BlockingIOError) as error:
            self.sock.close()
            raise _hung(path) from error
        except OSError as error:
            self.sock.close()
            raise EngineDown(f"cannot connect to {path}", details=str(error)) from error

    def _arm(self) -> None:
        if self.deadline is None:
            self.sock.settimeout(None)
            return
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)

    def fill(self) -> bool:
        """Reads once into the buffer; False at the end of the stream."""
        self._arm()
        data = self.sock.recv(_CHUNK)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        """The next line without its end. Raises Failed if the connection ends first."""
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            if start > _MAX_LINE or not self.fill():
                raise Failed("the engine closed the connection before it had answered")
        data = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return data.rstrip(b"\r")

    def some(self, most: int) -> bytes:
        """At least one byte, at most ``most``; nothing at the end of the stream."""
        if not self.buffer and not self.fill():
            return b""
        data = bytes(self.buffer[:most])
        del self.buffer[:most]
        return data

    def send(self, data: bytes) -> None:
        """Writes all of it."""
        self._arm()
        self.sock.sendall(data)

    def close(self) -> None:
        """May be called twice."""
        self.sock.close()


def _hung(path: str) -> EngineHung:
    return EngineHung(
        "the engine does not answer",
        details=f"{path} accepts connections, and no answer came in time",
        resolution="see its log (daemon.log in the run folder); end that process and call again:"
        " services go on running meanwhile and are taken up again",
    )


class Response:
    """An answer whose body has not been read yet. Close it, or read it to its end."""

    def __init__(self, wire: Wire, method: str) -> None:
        self.wire = wire
        head = wire.line().split(b" ", 2)
        if len(head) < 2 or not head[0].startswith(b"HTTP/") or not head[1].isdigit():
            raise Failed("what answers at the socket does not speak HTTP")
        self.status = int(head[1])
        self.headers: dict[str, str] = {}
        while line := wire.line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._empty = method == "HEAD" or self.status in (204, 304)

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes."""
        try:
            if self._empty or self.status == 101:
                return
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                yield from self._chunked()
            elif "content-length" in self.headers:
                left = int(self.headers["content-length"])
                while left > 0:
                    data = self.wire.some(min(left, _CHUNK))
                    if not data:
                        raise Failed("the engine closed the connection half-way")
                    left -= len(data)
                    yield data
            else:
                while data := self.wire.some(_CHUNK):
                    yield data
        except (TimeoutError, ConnectionError) as error:
            raise Failed("the connection to the engine was lost", details=str(error)) from error
        finally:
            self.close()

    def _chunked(self) -> Iterator[bytes]:
        while True:
            left = int(self.wire.line().partition(b";")[0] or b"0", 16)
            if left == 0:
                return
            while left > 0:
                data = self.wire.some(min(left, _CHUNK))
                if not data:
                    raise Failed("the engine closed the connection half-way")
                left -= len(data)
                yield data
            self.wire.line()

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def json(self) -> Any:
        """The body decoded; None if it is empty."""
        data = self.read()
        return json.loads(data) if data.strip() else None

    def messages(self) -> Iterator[Json]:
        """The body as a stream of JSON objects, each as soon as it is whole."""
        decoder = json.JSONDecoder()
        pending = ""
        raw = b""
        for chunk in self.chunks():
            raw += chunk
            # a chunk may end inside a character
            try:
                text = raw.decode("utf-8")
                raw = b""
            except UnicodeDecodeError as error:
                text = raw[: error.start].decode("utf-8")
                raw = raw[error.start :]
            pending += text
            while pending := pending.lstrip():
                try:
                    value, end = decoder.raw_decode(pending)
                except ValueError:
                    break
                pending = pending[end:]
                yield value

    def close(self) -> None:
        """May be called twice."""
        self.wire.close()


class Http:
    """Calls to one socket."""

    def __init__(self, path: str, prefix: str = "/v1.47") -> None:
        self.path = path
        self.prefix = prefix

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        ok: tuple[int, ...] = (),
    ) -> Response:
        """Sends a request and gives back the answer once its head has come.

        timeout: seconds for the whole call, body included; None waits for ever
        (streams). ok: statuses of 400 and more that are not raised. Raises the
        GemelError that the engine sent, EngineDown, EngineHung.
        """
        wire = Wire(self.path, timeout)
        try:
            response = self._exchange(wire, method, path, query, body, headers)
        except TimeoutError:
            wire.close()
            raise _hung(self.path) from None
        except OSError as error:
            wire.close()
            raise EngineDown("the connection to the engine was lost", details=str(error)) from error
        except BaseException:
            wire.close()
            raise
        if response.status >= 400 and response.status not in ok:
            raise self._error(response)
        return response

    def _exchange(
        self,
        wire: Wire,
        method: str,
        path: str,
        query: Query | None,
        body: Body,
        headers: Mapping[str, str] | None,
    ) -> Response:
        fields = {"Host": "gemel", "Connection": "close", **(headers or {})}
        data: bytes | None = None
        stream: Iterable[bytes] | None = None
        if isinstance(body, dict | list):
            data = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        elif isinstance(body, bytes):
            data = body
        elif body is not None:
            stream = body
            fields["Transfer-Encoding"] = "chunked"
        if stream is None and (data is not None or method == "POST"):
            fields["Content-Length"] = str(len(data or b""))
        head = f"{method} {self.prefix}{quote(path)}{encode_query(query)} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        try:
            wire.send(head.encode("latin-1") + (data or b""))
            for chunk in stream or ():
                if chunk:
                    wire.send(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
            if stream is not None:
                wire.send(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered (with a refusal) before it had read everything
        return Response(wire, method)

    @staticmethod
    def _error(response: Response) -> Exception:
        text = response.read()
        try:
            body = json.loads(text)
        except ValueError:
            body = {"message": text.decode("utf-8", "replace").strip()}
        if not isinstance(body, dict):
            body = {"message": str(body)}
        return from_answer(response.status, body)
