"""What the dashboard's tests show on it, and its page asked without a browser."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.engine import EngineProcess

COMPOSE = """
name: shop
services:
  web:
    image: test/busybox
    command:
      - sh
      - -c
      - |
        n=0
        while sleep 0.5; do
          n=$$((n+1))
          echo "{\\"level\\":\\"info\\",\\"msg\\":\\"served $$n\\",\\"path\\":\\"/orders\\"}"
          wget -q -O /dev/null http://api/index.html
          wget -q -O /dev/null http://api/missing
        done
    environment: {API_TOKEN: geheim, COLOUR: green}
    depends_on: [api]
  api:
    image: test/busybox
    command: ["sh", "-c", "echo 'WARN up' >&2; echo hi > /tmp/index.html; httpd -f -p 80 -h /tmp"]
    stop_grace_period: 1s
    healthcheck: {test: ["CMD", "true"], interval: 1s}
  vm:
    image: test/busybox
    runtime: microvm
    command: ["sh", "-c", "echo from the guest; sleep 100000"]
"""


def address(engine: EngineProcess) -> str:
    return engine.gemel("dashboard", "--no-open").stdout.strip()


def until(what: Callable[[], Any], timeout: float = 60) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def ask(
    where: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    """A request without a browser; headers replace those that are sent by themselves."""
    parts = urlsplit(where)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


class Socket:
    """A websocket that nobody reads."""

    def __init__(self, url: str, session: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self.socket.sendall(
            f"GET /api/live HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: http://{parts.netloc}\r\n"
            f"Cookie: {session}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        self.status = int(self.socket.recv(12).split()[1])

    def look(self, *topics: str) -> None:
        text = json.dumps({"look": topics}).encode()
        self.socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)


def closing(one: Socket) -> Socket:
    one.socket.close()
    return one
