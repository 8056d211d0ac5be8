"""Starts the engine when it is not running, once, however many commands ask at a time."""

from __future__ import annotations

import fcntl
import os
import sys
import time

from gemel.client.errors import EngineDown
from gemel.client.http import Http
from gemel.errors import Failed, Unavailable
from gemel.host import detach

#: Seconds for a new engine to answer.
START_TIMEOUT = 60.0


def ensure(run: str, root: str, socket: str, timeout: float = START_TIMEOUT) -> None:
    """Waits until an engine answers at ``socket``, starting one if nobody does.

    Raises Unavailable when the caller may not start one, Failed with the last
    lines of its log when it ends or does not answer in time.
    """
    if os.geteuid() != 0:
        raise Unavailable(
            "the engine is not running, and only root can start it",
            details=f"nothing answers at {socket}",
            resolution="sudo gemel daemon, or: systemctl start gemel",
        )
    os.makedirs(run, mode=0o755, exist_ok=True)
    lock = os.open(os.path.join(run, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        _take(lock, deadline)
        if _answers(socket):
            return
        _start(run, root, socket, deadline)
    finally:
        os.close(lock)


def _take(lock: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failed(
                    "another command is starting the engine and has not finished"
                ) from None
            time.sleep(0.05)


def _answers(socket: str) -> bool:
    try:
        Http(socket, "").call("GET", "/_ping", timeout=5).read()
    except EngineDown:
        return False
    return True


def _start(run: str, root: str, socket: str, deadline: float) -> None:
    log = os.path.join(run, "daemon.log")
    begin = os.path.getsize(log) if os.path.exists(log) else 0
    argv = [sys.executable, "-m", "gemel", "--root", root, "--run-dir", run, "daemon"]
    pid = detach.start(argv, log)
    pause = 0.01
    while not _answers(socket):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            raise Failed(
                f"the engine ended at its start (status {os.waitstatus_to_exitcode(status)})",
                details=_tail(log, begin),
                resolution="`gemel doctor` or `gemel daemon --debug` in the foreground says more",
            )
        if time.monotonic() > deadline:
            raise Failed(
                "the engine was started and does not answer",
                details=_tail(log, begin),
                resolution=f"its log is {log}",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def _tail(path: str, begin: int, lines: int = 12) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(begin, os.path.getsize(path) - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
