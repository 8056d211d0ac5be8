"""The engine as a command sees it: found (or started), and one method for each kind of call."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from gemel.client.errors import EngineDown
from gemel.client.hijack import Hijacked, open_stream
from gemel.client.http import DEFAULT_TIMEOUT, Body, Http, Json, Query, Response
from gemel.errors import InvalidInput, NotModified

DEFAULT_ROOT = "/var/lib/gemel"
DEFAULT_RUN = "/run/gemel"
API_VERSION = "1.47"
#: Seconds for the first answer; longer than any busy engine needs.
PING_TIMEOUT = 20.0


class Place:
    """Where the engine is: its folders and its socket, from options and the environment."""

    def __init__(self, host: str = "", root: str = "", run: str = "") -> None:
        explicit = host
        host = host or os.environ.get("GEMEL_HOST", "")
        self.root = os.path.abspath(root or os.environ.get("GEMEL_ROOT") or DEFAULT_ROOT)
        self.run = os.path.abspath(run or os.environ.get("GEMEL_RUN_DIR") or DEFAULT_RUN)
        if run and not explicit:
            host = ""  # --run-dir names one engine, whatever the environment says
        self.own_socket = not host
        self.socket = _socket(host) if host else os.path.join(self.run, "gemel.sock")
        if self.socket == os.path.join(self.run, "gemel.sock"):
            self.own_socket = True


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _socket(host: str) -> str:
    if host.startswith("unix://"):
        return host.removeprefix("unix://")
    if host.startswith("/"):
        return host
    raise InvalidInput(
        f"`{host}` is no address of an engine",
        resolution="GEMEL_HOST and --host take unix:///path/of/a.sock",
    )


class Client:
    """Calls to one engine; any number of threads may use it at once."""

    def __init__(self, place: Place, *, start: bool = True) -> None:
        self.place = place
        self.http = Http(place.socket)
        self._may_start = start and place.own_socket
        self._found = False
        self._lock = threading.Lock()

    def find(self) -> None:
        """Makes sure that an engine answers, once. Raises EngineDown, EngineHung, Failed."""
        with self._lock:
            if self._found:
                return
            try:
                self._ping()
            except EngineDown as error:
                if not self._may_start or error.brief.startswith("no permission"):
                    raise
                from gemel.client import starter

                starter.ensure(self.place.run, self.place.root, self.place.socket)
                self._ping()
            self._found = True

    def _ping(self) -> None:
        """One quick call: is anybody there, and which version of the API is spoken."""
        answer = Http(self.place.socket, "").call("GET", "/_ping", timeout=PING_TIMEOUT)
        answer.read()
        theirs = answer.headers.get("api-version", "")
        if theirs and _number(theirs) < _number(API_VERSION):
            self.http.prefix = f"/v{theirs}"

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        ok: tuple[int, ...] = (),
    ) -> Response:
        """See Http.call."""
        self.find()
        return self.http.call(
            method, path, query=query, body=body, headers=headers, timeout=timeout, ok=ok
        )

    def get(self, path: str, timeout: float | None = DEFAULT_TIMEOUT, **query: Any) -> Any:
        """Decoded answer of a GET."""
        return self.call("GET", path, query=query, timeout=timeout).json()

    def post(
        self, path: str, body: Body = None, timeout: float | None = DEFAULT_TIMEOUT, **query: Any
    ) -> Any:
        """Decoded answer of a POST. Raises NotModified if it was so already (304)."""
        response = self.call("POST", path, query=query, body=body, timeout=timeout)
        if response.status == 304:
            response.close()
            raise NotModified("it is so already")
        return response.json()

    def delete(self, path: str, timeout: float | None = DEFAULT_TIMEOUT, **query: Any) -> Any:
        """Decoded answer of a DELETE."""
        return self.call("DELETE", path, query=query, timeout=timeout).json()

    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[Json]:
        """JSON messages as they come, without a deadline."""
        return self.call(
            method, path, query=query, body=body, headers=headers, timeout=None
        ).messages()

    def hijack(self, path: str, body: Json | None = None, **query: Any) -> Hijacked:
        """A raw two-way stream."""
        self.find()
        return open_stream(self.http, path, query=query, body=body)

    def exists(self, path: str) -> Any:
        """Decoded answer of a GET, or None where there is nothing (404)."""
        response = self.call("GET", path, ok=(404,))
        data = response.json()
        return None if response.status == 404 else data
