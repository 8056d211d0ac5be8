"""Connections that become raw byte streams: attach and exec."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from gemel.client.http import Http, Query, Response

_CHUNK = 65536
#: Bytes of input held back while the other side does not read.
_HOLD = 1 << 20


class Output(NamedTuple):
    """Where the two output streams go."""

    out: Callable[[bytes], None]
    err: Callable[[bytes], None]


class Hijacked:
    """A raw two-way stream, after the engine answered 101 (or 200, as old ones do)."""

    def __init__(self, response: Response) -> None:
        self.wire = response.wire
        self.sock: socket.socket = response.wire.sock
        self.multiplexed = "multiplexed" in response.headers.get("content-type", "")
        self.sock.setblocking(False)

    def take(self) -> bytes | None:
        """What has come; empty at the end; None if nothing is there now."""
        if self.wire.buffer:
            data = bytes(self.wire.buffer)
            self.wire.buffer.clear()
            return data
        try:
            return self.sock.recv(_CHUNK)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def close_write(self) -> None:
        """Tells the other side that no more input comes; output goes on."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """May be called twice."""
        self.wire.close()


def open_stream(
    http: Http, path: str, *, query: Query | None = None, body: dict[str, Any] | None = None
) -> Hijacked:
    """Asks for an upgrade of the connection. Raises what the engine refuses with."""
    headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
    response = http.call("POST", path, query=query, body=body, headers=headers, timeout=60.0)
    return Hijacked(response)


class Demultiplexer:
    """Splits Docker's framed stream: 8 bytes of head (stream, 0, 0, 0, length), then the bytes."""

    def __init__(self, output: Output, *, raw: bool) -> None:
        self.output = output
        self.raw = raw
        self._pending = bytearray()

    def feed(self, data: bytes) -> None:
        """Writes out every whole frame, and of the last one as much as is there."""
        if self.raw:
            self.output.out(data)
            return
        self._pending += data
        while len(self._pending) >= 8:
            length = int.from_bytes(self._pending[4:8], "big")
            if len(self._pending) < 8 + length:
                return
            write = self.output.err if self._pending[0] == 2 else self.output.out
            write(bytes(self._pending[8 : 8 + length]))
            del self._pending[: 8 + length]


class DetachKeys:
    """Finds the key sequence that lets go of a terminal (Docker's form: ``ctrl-p,ctrl-q``)."""

    def __init__(self, keys: str = "ctrl-p,ctrl-q") -> None:
        self.sequence = parse_keys(keys)
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to send on, and whether the sequence is complete."""
        if not self.sequence:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self.sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self.sequence):
                    self._matched = 0
                    return bytes(out), True
                continue
            out += self.sequence[: self._matched]
            self._matched = 0
            if byte == self.sequence[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False


def parse_keys(keys: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``a,b`` as bytes. Raises ValueError."""
    out = bytearray()
    for key in filter(None, keys.split(",")):
        if len(key) == 1:
            out += key.encode()
        elif key.lower().startswith("ctrl-") and len(key) == 6:
            code = ord(key[5].upper()) - 64
            if not 0 <= code < 32:
                raise ValueError(f"no such key: {key}")
            out.append(code)
        else:
            raise ValueError(f"no such key: {key}")
    return bytes(out)


def pump(
    stream: Hijacked,
    output: Output,
    *,
    stdin: int | None,
    raw: bool,
    detach: DetachKeys | None = None,
) -> bool:
    """Carries bytes both ways until the other side ends; False if it was detached from.

    stdin: descriptor to read input from, or None. raw: the other side has a
    terminal, its output is not framed. One loop and no thread: input is read
    only while little of it waits to be sent, so neither side can block the other.
    """
    split = Demultiplexer(output, raw=raw and not stream.multiplexed)
    pending = bytearray()
    source = stdin
    half_closed = stdin is None  # without input the connection stays as it is
    poller = select.poll()
    while True:
        data = stream.take()
        if data == b"":
            return True
        if data:
            split.feed(data)
            continue
        _register(poller, stream.sock, bool(pending), source, len(pending) < _HOLD)
        ready = dict(poller.poll(60_000))
        if source is not None and source in ready:
            typed = _read(source)
            if not typed:
                poller.unregister(source)
                source = None
            elif detach is not None:
                typed, done = detach.feed(typed)
                if done:
                    return False
            pending += typed
        if pending:
            _send_some(stream.sock, pending)
        if source is None and not pending and not half_closed:
            half_closed = True
            stream.close_write()


def _register(
    poller: select.poll, sock: socket.socket, writing: bool, source: int | None, room: bool
) -> None:
    poller.register(sock, select.POLLIN | (select.POLLOUT if writing else 0))
    if source is not None:
        poller.register(source, select.POLLIN if room else 0)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""


def _send_some(sock: socket.socket, pending: bytearray) -> None:
    try:
        sent = sock.send(pending)
    except BlockingIOError:
        return
    except OSError:
        pending.clear()  # the other side reads no more; its output decides when it ends
        return
    del pending[:sent]
