"""Which faults held on the edge of a call while it lasted: a mark for what they may have touched.

A fault of the kernel's leaves no trace in a call, so such a mark is inferred, from the edge and
the time. What an HTTP fault has touched says so itself, in a header of its answer; what is delayed
is known by the connection that the proxy made for it.
"""

from __future__ import annotations

import time
from collections import deque

import msgspec

from gemel.model.faults import FaultRequest, describe
from gemel.observe.capture.records import Peer

#: Faults of the past that are remembered.
MOST = 256


class Mark(msgspec.Struct, frozen=True, rename="pascal"):
    """A fault that a call met. sure: its answer says so, or the proxy that delayed it; else
    inferred from edge and time."""

    id: int
    fault: str
    sure: bool = False


class Touched(msgspec.Struct, frozen=True):
    """What of a call is needed. fault: the number that its answer names; carried: that of the
    fault for which the proxy carried it on."""

    source: Peer
    target: Peer
    start: float
    duration: float
    protocol: str = ""
    fault: str = ""
    carried: str = ""


class _Held:
    """A fault, and since when and until when it has held (seconds since the epoch)."""

    def __init__(self, number: int, wanted: FaultRequest) -> None:
        self.number, self.wanted = number, wanted
        self.words = describe(wanted)
        self.began = time.time()
        self.ends = self.began + wanted.seconds if wanted.seconds else float("inf")

    def concerns(self, call: Touched) -> bool:
        """Whether it held on the call's edge while the call lasted."""
        if call.start > self.ends or call.start + call.duration < self.began:
            return False
        there = self._is(call.source, self.wanted.source) and self._is(
            call.target, self.wanted.target
        )
        port = call.target.port  # 0 where it is not known
        if there and (self._both_ways or not port or self.wanted.port in (0, port)):
            return True
        return self._both_ways and (
            self._is(call.source, self.wanted.target) and self._is(call.target, self.wanted.source)
        )

    @property
    def _both_ways(self) -> bool:
        return bool(self.wanted.down or self.wanted.loss or self.wanted.rate)

    def _is(self, peer: Peer, name: str) -> bool:
        if name != peer.service:
            return name == peer.name or (len(name) >= 12 and peer.instance.startswith(name))
        return not self.wanted.project or peer.project in ("", self.wanted.project)

    def mark(self, call: Touched) -> Mark | None:
        """The mark that it leaves on a call of its edge."""
        wanted = self.wanted
        late = bool(wanted.latency or wanted.jitter)
        number = str(self.number)
        if (call.fault == number and wanted.http) or (call.carried == number and late):
            return Mark(self.number, self.words, sure=True)
        if self._both_ways or late:
            return Mark(self.number, self.words)
        return None  # HTTP faults mark what they touch


class Marks:
    """What has held of late. Bounded; nothing of it lasts longer than the engine."""

    def __init__(self) -> None:
        self._held: deque[_Held] = deque(maxlen=MOST)

    def begin(self, number: int, wanted: FaultRequest) -> None:
        """A fault holds from now on."""
        self._held.append(_Held(number, wanted))

    def end(self, number: int) -> None:
        """It holds no more."""
        for held in self._held:
            if held.number == number:
                held.ends = min(held.ends, time.time())

    def of(self, call: Touched) -> list[Mark]:
        """The faults that a call met."""
        found = [held.mark(call) for held in self._held if held.concerns(call)]
        return [mark for mark in found if mark is not None]

    def line(self, line: bytes) -> bytes:
        """A JSON line of an exchange, with ``faults`` if there were any."""
        if not self._held or not line.startswith(b'{"id"') or not line.endswith(b"}\n"):
            return line
        try:
            marks = self.of(msgspec.json.decode(line, type=Touched))
        except msgspec.MsgspecError:
            return line
        if not marks:
            return line
        return line[:-2] + b',"faults":' + msgspec.json.encode(marks) + b"}\n"
