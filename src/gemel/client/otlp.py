"""Sends OTLP/JSON to a collector."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gemel.errors import Failed, InvalidInput, Unavailable

Json = dict[str, Any]
TIMEOUT = 10.0
#: How often a request is tried where the collector asks for patience, and the first pause.
ATTEMPTS, PAUSE = 4, 0.5
_AGAIN = (429, 502, 503, 504)


class Target(NamedTuple):
    """Where a collector takes traces."""

    secure: bool
    host: str
    port: int
    path: str


def parse(url: str) -> Target:
    """``http://HOST[:4318][/v1/traces]``. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(
            f"`{url}` is no address of a collector", resolution="--otlp http://localhost:4318"
        )
    path = parts.path.rstrip("/")
    path = path if path.endswith("/v1/traces") else path + "/v1/traces"
    return Target(parts.scheme == "https", parts.hostname, port or 4318, path)


def send(target: Target, requests: Iterable[tuple[Json, Json]]) -> int:
    """Sends requests; gives back how many traces that were. Raises Unavailable, Failed."""
    kind = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
    connection = kind(target.host, target.port, timeout=TIMEOUT)
    sent = set()
    try:
        for head, request in requests:
            _send(connection, target, json.dumps(request).encode())
            sent.add(head["Id"])
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"no collector answers at {target.host}:{target.port}",
            details=str(error) or type(error).__name__,
            resolution="is it started, and does it take OTLP over HTTP there?",
        ) from error
    finally:
        connection.close()
    return len(sent)


def _send(connection: http.client.HTTPConnection, target: Target, body: bytes) -> None:
    for attempt in range(ATTEMPTS):
        connection.request("POST", target.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read(4096)
        if answer.status < 300:
            return
        if answer.status not in _AGAIN or attempt == ATTEMPTS - 1:
            raise Failed(
                f"the collector refused the traces with status {answer.status}",
                details=said.decode("utf-8", "replace")[:500],
            )
        time.sleep(PAUSE * 2**attempt)
