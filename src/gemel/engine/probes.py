"""Health checks from outside: HTTP, TCP and gRPC, by the engine, at an instance's address.

They need no program in the image. As the test of a health check:

    ["HTTP", "8080", "/healthz"]             GET; a status from 200 to 399 is healthy
    ["HTTP", "8080", "/healthz", "200,204"]  only these are
    ["TCP", "5432"]                          a connection is accepted
    ["GRPC", "9000", "orders"]               grpc.health.v1.Health/Check says SERVING (the name of
                                             a service may be left out)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Sequence

from gemel.errors import InvalidInput

KINDS = ("HTTP", "TCP", "GRPC")
#: Bytes of an HTTP answer's head that are read, and of its body that are kept.
HEAD, BODY = 16384, 1024
#: What an HTTP/2 client says first (RFC 9113, 3.4): the preface and empty SETTINGS.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_PADDED = 8
#: grpc.health.v1.HealthCheckResponse.ServingStatus
_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def check(test: Sequence[str]) -> None:
    """Raises InvalidInput, in words, for a test of these kinds that is not as above."""
    kind, rest = test[0], list(test[1:])
    most = {"HTTP": 3, "TCP": 1, "GRPC": 2}[kind]
    if not 1 <= len(rest) <= most:
        raise InvalidInput(f"a {kind} health check takes a port and at most {most - 1} more values")
    if not rest[0].isdigit() or not 0 < int(rest[0]) < 65536:
        raise InvalidInput(f"{rest[0][:20]!r} is no port of a {kind} health check")
    if kind == "HTTP" and len(rest) > 1:
        if not rest[1].startswith("/") or any(c <= " " or c > "~" for c in rest[1]):
            raise InvalidInput(f"{rest[1][:60]!r} is no path of an HTTP health check")
        _expected(rest[2] if len(rest) > 2 else "")
    if kind == "GRPC" and len(rest) > 1 and len(rest[1].encode()) > 120:
        raise InvalidInput("the name of a gRPC health check's service is too long")


def _expected(text: str) -> frozenset[int]:
    if not text:
        return frozenset(range(200, 400))
    parts = text.split(",")
    if not all(part.isdigit() and 100 <= int(part) <= 599 for part in parts):
        raise InvalidInput(f"{text[:40]!r} is no status that an HTTP health check can expect")
    return frozenset(map(int, parts))


async def run(test: Sequence[str], address: str) -> tuple[int, str]:
    """Does the check once: 0 or 1, and what was seen. The caller sees to the deadline."""
    port = int(test[1])
    try:
        if test[0] == "HTTP":
            path = test[2] if len(test) > 2 else "/"
            return await _http(address, port, path, _expected(test[3] if len(test) > 3 else ""))
        if test[0] == "GRPC":
            return await _grpc(address, port, test[2] if len(test) > 2 else "")
        async with _connected(address, port):
            return 0, f"port {port} accepts connections"
    except (OSError, asyncio.IncompleteReadError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else "the connection ended early"
        return 1, f"{test[0]} port {port}: {reason}"


@contextlib.asynccontextmanager
async def _connected(
    address: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address, port, limit=HEAD)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _http(address: str, port: int, path: str, expected: frozenset[int]) -> tuple[int, str]:
    async with _connected(address, port) as (reader, writer):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: gemel-healthcheck\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            head = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            head = b""
        words = head.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return 1, f"port {port} does not speak HTTP: {head[:60]!r}"
        status = int(words[1])
        if status in expected:
            return 0, f"HTTP status {status}"
        rest = await reader.read(HEAD)
        body = rest.partition(b"\r\n\r\n")[2][:BODY].decode("utf-8", "replace").strip()
        return 1, f"HTTP status {status} for {path}" + (f": {body}" if body else "")


def _text(value: bytes) -> bytes:
    """A string of HPACK (RFC 7541, 5.2) as it is; shorter than 127 bytes."""
    return bytes([len(value)]) + value


def _header(name: bytes, value: bytes) -> bytes:
    """A literal header that is never kept (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _question(address: str, port: int, service: str) -> bytes:
    """All that is sent: preface, headers, and one message that ends the stream."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", f"{address}:{port}".encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"gemel-healthcheck"),
    ]
    block = b"".join(_header(*header) for header in headers)
    name = service.encode()
    message = b"\x0a" + _text(name) if name else b""
    data = b"\x00" + struct.pack(">I", len(message)) + message
    return _PREFACE + _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, data)


async def _grpc(address: str, port: int, service: str) -> tuple[int, str]:
    async with _connected(address, port) as (reader, writer):
        writer.write(_question(address, port, service))
        answer = bytearray()
        while True:
            head = await reader.readexactly(9)
            size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
            if head.startswith(b"HTTP/") or size > 1 << 20:
                return 1, f"port {port} does not speak gRPC"
            payload = await reader.readexactly(size)
            stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
            if kind == _SETTINGS and not flags & _ACK:
                writer.write(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                writer.write(_frame(_PING, _ACK, 0, payload))
            elif kind == _GOAWAY or (kind == _RESET and stream == 1):
                return 1, f"port {port} refused the call"
            elif stream == 1 and kind == _DATA:
                answer += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if stream == 1 and kind in (_DATA, _HEADERS):
                verdict = _verdict(bytes(answer), ended=bool(flags & _END_STREAM))
                if verdict is not None:
                    return verdict


def _verdict(answer: bytes, *, ended: bool) -> tuple[int, str] | None:
    """What a HealthCheckResponse says; None while it is not all there."""
    whole = len(answer) >= 5 and len(answer) >= 5 + int.from_bytes(answer[1:5])
    if not whole:
        return (1, "the gRPC server has no health service, or not of this name") if ended else None
    message = answer[5 : 5 + int.from_bytes(answer[1:5])]
    status = message[1] if len(message) == 2 and message[0] == 8 else 0
    return int(status != 1), f"gRPC health: {_STATUS.get(status, status)}"
