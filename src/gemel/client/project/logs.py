"""Logs of many containers at once, each line whole and with its container's name before it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gemel.client.engine import Client
from gemel.client.hijack import Demultiplexer, Output
from gemel.client.http import Response
from gemel.client.project.members import Target

#: Compose's colours, in its order.
_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")


class LogOptions(NamedTuple):
    """Which part of the logs; since and until in seconds as the API takes them."""

    follow: bool = False
    since: str = ""
    until: str = ""
    tail: str = "all"
    timestamps: bool = False


def names_of(targets: Iterable[Target]) -> list[str]:
    """The names that stand before the lines: ``web-1``, or the container's own."""
    return [label_of(target) for target in targets]


def label_of(target: Target) -> str:
    """``SERVICE-NUMBER``, else the container's name."""
    if target.service and target.number and not target.one_off:
        return f"{target.service}-{target.number}"
    return target.name


class Printer:
    """Prints lines with their names padded to one width; safe from any thread."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        prefix: bool = True,
        colour: bool = False,
        write: Callable[[str], None] | None = None,
        write_error: Callable[[str], None] | None = None,
    ) -> None:
        self.prefix = prefix
        self.colour = colour
        self._width = max((len(name) for name in names), default=0)
        self._codes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._write = write or _to(sys.stdout)
        self._write_error = write_error or _to(sys.stderr)
        for name in names:
            self._code(name)

    def _code(self, name: str) -> str:
        if name not in self._codes:
            self._codes[name] = _COLOURS[len(self._codes) % len(_COLOURS)]
        return self._codes[name]

    def line(self, name: str, text: str, *, error: bool = False, status: bool = False) -> None:
        """One line of ``name``, without its end. status: not its own, but about it."""
        with self._lock:
            head = ""
            if status:
                head = f"{name} " if not self.prefix else f"{name.ljust(self._width)}  "
            elif self.prefix:
                self._width = max(self._width, len(name))
                head = f"{name.ljust(self._width)}  | "
                if self.colour:
                    head = f"\x1b[{self._code(name)}m{head}\x1b[0m"
            # as Compose: with a prefix all goes to standard output, in one order
            write = self._write_error if error and not self.prefix else self._write
            write(head + text + "\n")


def _to(stream: object) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text)  # type: ignore[attr-defined]
        stream.flush()  # type: ignore[attr-defined]

    return write


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put
        self._pending = b""

    def feed(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._put(line.decode("utf-8", "replace").removesuffix("\r"))

    def end(self) -> None:
        if self._pending:
            self._put(self._pending.decode("utf-8", "replace"))
            self._pending = b""


def open_log(client: Client, target: Target, options: LogOptions) -> Response:
    """One log, whose chunks come as it grows where that is asked for."""
    query = {
        "stdout": True,
        "stderr": True,
        "follow": options.follow,
        "since": options.since or None,
        "until": options.until or None,
        "tail": options.tail,
        "timestamps": options.timestamps,
    }
    timeout = None if options.follow else 600
    return client.call("GET", f"/containers/{target.id}/logs", query=query, timeout=timeout)


def read_log(
    client: Client, target: Target, options: LogOptions, put: Callable[[str, bool], None]
) -> None:
    """Calls ``put(line, is_error)`` for each line of one log, until its end."""
    response = open_log(client, target, options)
    out = Lines(lambda line: put(line, False))
    err = Lines(lambda line: put(line, True))
    raw = "raw" in response.headers.get("content-type", "multiplexed")
    split = Demultiplexer(Output(out.feed, err.feed), raw=raw)
    for chunk in response.chunks():
        split.feed(chunk)
    out.end()
    err.end()
