"""Progress: a line for each resource, redrawn on a terminal, printed once elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import NamedTuple, TextIO

_SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_REDRAW = 0.1


class Line(NamedTuple):
    """A resource's state. end: None while it is being worked on."""

    status: str
    begin: float
    end: float | None = None
    mark: str = ""


class Progress:
    """Shows the state of resources on standard error; any thread may tell it.

    mode: auto, tty, plain or quiet. title: what Compose writes in the first line (Running).
    """

    def __init__(
        self, title: str = "Running", mode: str = "auto", stream: TextIO | None = None,
        colour: bool = True,
    ) -> None:  # fmt: skip
        self.title = title
        self.stream = stream or sys.stderr
        if mode == "auto":
            mode = "tty" if self.stream.isatty() else "plain"
        self.mode = mode
        self.colour = colour and mode == "tty"
        self._lines: dict[str, Line] = {}
        self._lock = threading.RLock()
        self._drawn = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self.mode == "tty":
            self._thread = threading.Thread(target=self._keep_drawing, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
            self._draw()

    def working(self, resource: str, status: str) -> None:
        """``resource`` (``Container shop-web-1``) is being worked on: Creating, Starting, …"""
        with self._lock:
            old = self._lines.get(resource)
            begin = old.begin if old and old.end is None else time.monotonic()
            self._lines[resource] = Line(status, begin)
            self._print(resource, status)

    def done(self, resource: str, status: str) -> None:
        """It is as it should be: Created, Started, Healthy, …"""
        self._finish(resource, status, "✔")

    def failed(self, resource: str, status: str = "Error") -> None:
        """It could not be done."""
        self._finish(resource, status, "✘")

    def note(self, text: str) -> None:
        """A line of text above the list."""
        with self._lock:
            if self.mode == "tty":
                self._erase()
                self.stream.write(text + "\n")
                self._draw()
            elif self.mode == "plain":
                self.stream.write(text + "\n")
                self.stream.flush()

    def detail(self, text: str) -> None:
        """A line of a build's output: printed where lines are, left out where they are redrawn."""
        if self.mode == "plain":
            self.note(text)

    def _finish(self, resource: str, status: str, mark: str) -> None:
        with self._lock:
            old = self._lines.get(resource)
            now = time.monotonic()
            self._lines[resource] = Line(status, old.begin if old else now, now, mark)
            self._print(resource, status)

    def _print(self, resource: str, status: str) -> None:
        if self.mode == "plain":
            self.stream.write(f" {resource}  {status}\n")
            self.stream.flush()

    def _keep_drawing(self) -> None:
        while not self._stop.wait(_REDRAW):
            self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        with self._lock:
            if not self._lines:
                return
            try:
                columns, rows = os.get_terminal_size(self.stream.fileno())
            except (OSError, ValueError):
                columns, rows = 80, 24
            lines = render(self.title, self._lines, time.monotonic(), columns or 80, self.colour)
            self._erase()
            shown = lines if len(lines) < (rows or 24) else lines[:1] + lines[-((rows or 24) - 3) :]
            self.stream.write("\n".join(shown) + "\n")
            self.stream.flush()
            self._drawn = len(shown)


def render(title: str, lines: dict[str, Line], now: float, columns: int, colour: bool) -> list[str]:
    """The lines as Compose draws them: mark, resource, status, seconds at the right."""
    done = sum(1 for line in lines.values() if line.end is not None)
    out = [f"[+] {title} {done}/{len(lines)}"]
    width = max(len(name) for name in lines)
    for name, line in lines.items():
        mark = line.mark or _SPIN[int(now / _REDRAW) % len(_SPIN)]
        seconds = f"{(line.end or now) - line.begin:.1f}s"
        left = f" {mark} {name.ljust(width)}  {line.status}"
        room = columns - len(seconds) - 1
        text = f"{left[:room]:<{room}} {seconds}"
        if colour:
            code = {"✔": "32", "✘": "31"}.get(line.mark, "33")
            text = text.replace(mark, f"\x1b[{code}m{mark}\x1b[0m", 1)
        out.append(text[: columns + 9])
    return out
