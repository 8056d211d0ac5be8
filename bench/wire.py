"""One HTTP client for all engines, so that only the engines differ."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Refused(Exception):
    """An engine answered with an error."""


class Api:
    """Calls to an engine's socket over a connection that stays open."""

    def __init__(self, path: Path, timeout: float = 120) -> None:
        self._path = path
        self._timeout = timeout
        self._connection: _Connection | None = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Decoded answer. body: JSON, or an open file that is sent as a tar archive."""
        if self._connection is None:
            self._connection = _Connection(self._path, self._timeout)
        kind = "application/json"
        data: bytes | BinaryIO | None = None
        if isinstance(body, dict | list):
            data = json.dumps(body).encode()
        elif body is not None:
            data, kind = body, "application/x-tar"
        headers = {} if data is None else {"Content-Type": kind}
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            raw = answer.read()
        except BaseException:
            self.close()
            raise
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {raw[:300]!r}")
        try:
            return json.loads(raw) if raw else None
        except ValueError:
            return raw

    def alive(self) -> bool:
        """Whether anybody answers."""
        try:
            self.call("GET", "/_ping")
        except (OSError, http.client.HTTPException, Refused):
            return False
        return True

    def close(self) -> None:
        """May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def wait_until(ready: Callable[[], bool], seconds: float, what: str, pause: float = 0.02) -> None:
    """Waits for something with a deadline. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


def first_answer(address: str, port: int, seconds: float) -> None:
    """Asks ``GET /`` until an HTTP server answers. Raises TimeoutError.

    Short attempts: a packet that is lost while a machine boots is sent again by the
    kernel only a second later, which would be measured as its start.
    """

    def ask() -> bool:
        try:
            with socket.create_connection((address, port), timeout=0.1) as connection:
                connection.settimeout(5)
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return connection.recv(16).startswith(b"HTTP/")
        except OSError:
            return False

    wait_until(ask, seconds, f"an HTTP answer of {address}:{port}", pause=0.005)
