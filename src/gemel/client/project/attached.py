"""The output of an attached ``up``: every container's, from its first byte to its end."""

from __future__ import annotations

import queue
import threading
import time
from typing import NamedTuple

from gemel.client.engine import Client
from gemel.client.hijack import Demultiplexer, Hijacked, Output
from gemel.client.project.logs import Lines, LogOptions, Printer, label_of, read_log
from gemel.client.project.members import Target
from gemel.client.session import Waiter
from gemel.errors import GemelError

#: Seconds between looks at a container that is about to be restarted (with its backoff).
_POLL = 0.2


class Ended(NamedTuple):
    """A container that has ended for good, with its exit code."""

    target: Target
    code: int


class Follower:
    """Follows containers in threads of its own and tells of each one's end.

    quiet: services whose output is not shown (``attach: false``), only waited for.
    """

    def __init__(self, client: Client, printer: Printer, quiet: frozenset[str]) -> None:
        self.client = client
        self.printer = printer
        self.quiet = quiet
        self.ends: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._followed: set[str] = set()
        self._lock = threading.Lock()
        self.closing = False

    @property
    def count(self) -> int:
        """How many containers are followed, ended ones too."""
        return len(self._followed)

    def before_start(self, target: Target) -> None:
        """Attaches to a container that is about to be started, so that no byte is missed."""
        if not self._is_new(target):
            return
        stream: Hijacked | None = None
        if target.service not in self.quiet:
            path = f"/containers/{target.id}/attach"
            stream = self.client.hijack(path, stream=1, stdout=1, stderr=1)
        try:
            waiter = Waiter(self.client, target.id, "next-exit")
        except BaseException:
            if stream is not None:
                stream.close()
            raise
        self._begin(target, waiter, stream, None)

    def running(self, target: Target) -> None:
        """Follows one that runs already, from now on."""
        if self._is_new(target):
            waiter = Waiter(self.client, target.id, "not-running")
            self._begin(target, waiter, None, LogOptions(follow=True, tail="0"))

    def _is_new(self, target: Target) -> bool:
        with self._lock:
            if target.id in self._followed:
                return False
            self._followed.add(target.id)
            return True

    def _begin(
        self, target: Target, waiter: Waiter, stream: Hijacked | None, log: LogOptions | None
    ) -> None:
        threading.Thread(
            target=self._follow, args=(target, waiter, stream, log), daemon=True
        ).start()

    def _follow(
        self, target: Target, waiter: Waiter, stream: Hijacked | None, log: LogOptions | None
    ) -> None:
        label = label_of(target)
        shown = target.service not in self.quiet
        try:
            while True:
                if stream is not None:
                    self._pump(stream, target, label)
                    stream = None
                elif log is not None and shown:
                    self._logs(target, label, log)
                code = waiter.result()
                ended = time.time()
                again = self._starts_again(target)
                suffix = " (restarting)" if again else ""
                self.printer.line(label, f"exited with code {code}{suffix}", status=True)
                if not again:
                    self.ends.put(Ended(target, code))
                    return
                log = LogOptions(follow=True, since=f"{ended:.9f}")
                waiter = Waiter(self.client, target.id, "not-running")
        except GemelError:
            self.ends.put(Ended(target, 0))  # removed, or the engine has gone

    def _starts_again(self, target: Target) -> bool:
        """Whether the restart policy brings it up again; waits until it is up."""
        path = f"/containers/{target.id}/json"
        while not self.closing:
            status = self.client.get(path)["State"]["Status"]
            if status != "restarting":
                return bool(status == "running")
            time.sleep(_POLL)
        return False

    def _pump(self, stream: Hijacked, target: Target, label: str) -> None:
        stream.sock.setblocking(True)
        out = Lines(lambda text: self.printer.line(label, text))
        err = Lines(lambda text: self.printer.line(label, text, error=True))
        split = Demultiplexer(Output(out.feed, err.feed), raw=target.tty)
        while data := stream.take():
            split.feed(data)
        out.end()
        err.end()
        stream.close()

    def _logs(self, target: Target, label: str, options: LogOptions) -> None:
        def put(text: str, bad: bool) -> None:
            self.printer.line(label, text, error=bad)

        read_log(self.client, target, options, put)
