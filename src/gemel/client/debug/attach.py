"""A debugger in a running service: the program that sees to it, and what it says."""

from __future__ import annotations

import contextlib
import json
import select
import time
from collections.abc import Iterator

from gemel.client.debug.toolbox import Beside, python
from gemel.client.hijack import Demultiplexer, Hijacked, Output
from gemel.client.http import Json
from gemel.errors import Failed, InvalidInput

KINDS = ("python", "node", "gdb")
#: Ports that editors expect, by kind.
PORTS = {"python": 5678, "node": 9229, "gdb": 2345}
#: Seconds that it may take: an emulated guest imports debugpy slowly.
PATIENCE = 300.0
_LINE_MOST = 1 << 20
#: What Node is started with when it is to wait for its inspector.
NODE_WAITS = "NODE_OPTIONS=--inspect-brk=127.0.0.1:9229"


class Attached:
    """The debugger's side in the service, for as long as the block of ``attach`` runs."""

    def __init__(self, stream: Hijacked) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._rest = ""
        self._errors = bytearray()
        self._split = Demultiplexer(Output(self._said, self._failed), raw=not stream.multiplexed)
        self.told: Json = {}

    def _said(self, data: bytes) -> None:
        parts = (self._rest + data.decode("utf-8", "replace")).split("\n")
        self._rest = parts.pop()[-_LINE_MOST:]
        self._lines += parts

    def _failed(self, data: bytes) -> None:
        self._errors += data[: max(0, 16384 - len(self._errors))]

    def next(self, seconds: float) -> Json | None:
        """The next line that it says; None when it has ended. Raises Failed after so long."""
        end = time.monotonic() + seconds
        while True:
            while self._lines:
                with contextlib.suppress(ValueError):
                    found: Json = json.loads(self._lines.pop(0))
                    return found
            left = end - time.monotonic()
            if left <= 0:
                raise Failed("the debugger does not answer", details=f"after {seconds:g} s")
            data = self._stream.take()
            if data == b"":
                return None
            if data is None:
                select.select([self._stream.sock], [], [], min(left, 1.0))
            else:
                self._split.feed(data)

    def begin(self) -> None:
        """Waits until it has attached. Raises Failed with the reason."""
        told = self.next(PATIENCE + 30)
        if told is None:
            text = self._errors.decode("utf-8", "replace").strip()
            raise Failed("the debugger could not attach", details=text)
        if "error" in told:
            brief, _, details = str(told["error"]).partition("\n")
            raise Failed(brief, details=details)
        self.told = told

    def wait(self) -> None:
        """Until the service's process or the debugger has ended."""
        while True:
            with contextlib.suppress(Failed):
                said = self.next(3600.0)
                if said is None or "ended" in said:
                    return

    def let_go(self) -> None:
        """Has it detach, and waits until it has."""
        self._stream.close_write()
        with contextlib.suppress(Failed):
            while self.next(20.0) is not None:
                pass


@contextlib.contextmanager
def attach(beside: Beside, kind: str, pid: int, wait: bool) -> Iterator[Attached]:
    """Attaches; in the block editors may connect to ``told["port"]`` of the service's loopback.

    pid: which process, 0 for the first that fits. wait: it was started for this.
    Raises Failed, InvalidInput.
    """
    if kind not in KINDS:
        raise InvalidInput(f"there is no debugger {kind!r}", resolution=", ".join(KINDS))
    wanted = {"kind": kind, "pid": pid, "wait": wait, "seconds": PATIENCE}
    program = "python_attach" if kind == "python" else "other_attach"
    _, stream = beside.open(python(program, json.dumps(wanted)))
    attached = Attached(stream)
    try:
        attached.begin()
        yield attached
    finally:
        attached.let_go()
        stream.close()
