"""Processes of gemel's own beside the engine: found by their folder, told by a socket.

A folder holds ``control.sock``, ``pid`` (number and start time) and ``log``. ``begin`` is for the
process, the rest for the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
from pathlib import Path

from gemel.host import files, privileges
from gemel.host.privileges import start_time

#: Seconds that a process has to end, and to take a connection.
END, TAKE = 10.0, 5.0


def begin(folder: Path, name: str, backlog: int = 64) -> tuple[socket.socket, int]:
    """Binds the control socket, goes to the background, leaves the pid file and the log.

    Gives back the socket, which listens, and a descriptor: one byte is to be written to it once
    the process is ready. name: as ps shows it.
    """
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # a relative path: those of unix sockets may not be longer than 107 bytes
    os.chdir(folder)
    Path("control.sock").unlink(missing_ok=True)
    before = os.umask(0o177)
    control.bind("control.sock")
    os.umask(before)
    control.listen(backlog)
    ready = privileges.detach(folder / "log")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # in one step: whoever reads it finds the one before or this one
    files.write(folder / "pid", f"{os.getpid()} {start_time(os.getpid())}\n", mode=0o644)
    privileges.set_name(name)
    return control, ready


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


def log_tail(folder: Path, lines: int = 3) -> str:
    """What the process said last."""
    try:
        return "\n".join((folder / "log").read_text().splitlines()[-lines:])
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
            with contextlib.suppress(ChildProcessError):  # it is a child only until it detaches
                os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def forget(folder: Path) -> None:
    """Removes what a process that has ended left in its folder."""
    for name in ("control.sock", "pid", "log"):
        (folder / name).unlink(missing_ok=True)


async def until_change(changed: asyncio.Event, reader: asyncio.StreamReader, settle: float) -> None:
    """Waits for something to tell the process, and ``settle`` seconds for more of it.

    Raises EOFError when the process ends.
    """
    waiting = asyncio.ensure_future(changed.wait())
    gone = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise EOFError("it has ended")
    finally:
        waiting.cancel()
        gone.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)
    await asyncio.sleep(settle)
