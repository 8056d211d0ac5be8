"""Processes of gemel's own that end with the engine: found by their folder, told by a socket.

A folder holds ``control.sock``, ``pid`` (number and start time) and ``log``.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

from gemel.host.privileges import start_time

#: Seconds that a process has to end, and to take a connection.
END, TAKE = 2.0, 5.0


def connect(folder: Path) -> socket.socket:
    """A connection to the process of a folder. Raises OSError."""
    # by way of a descriptor: a path of more than 107 bytes cannot be connected to
    place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.settimeout(TAKE)
        one.connect(f"/proc/self/fd/{place}/control.sock")
        return one
    except BaseException:
        one.close()
        raise
    finally:
        os.close(place)


def log_tail(folder: Path) -> str:
    """What the process said last."""
    try:
        return "\n".join((folder / "log").read_text().splitlines()[-3:])
    except OSError:
        return ""


def kill(folder: Path) -> None:
    """Ends the process that the pid file names, if it lives."""
    try:
        pid, started = map(int, (folder / "pid").read_text().split())
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        if start_time(pid) == started:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            ended = select.poll()
            ended.register(fd, select.POLLIN)
            ended.poll(END * 1000)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def forget(folder: Path) -> None:
    """Removes what a process that has ended left in its folder."""
    for name in ("control.sock", "pid", "log"):
        (folder / name).unlink(missing_ok=True)
