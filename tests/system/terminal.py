"""A command under a real terminal, driven like a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path


class Terminal:
    """``gemel`` with a pseudo-terminal as its three streams."""

    def __init__(self, *args: str, env: Mapping[str, str], cwd: Path, rows: int = 30) -> None:
        self.master, slave = pty.openpty()
        self.output = b""
        self.resize(rows, 100)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gemel", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "xterm"},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the window's size, as a person dragging it does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self.master, text.encode())

    def _read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.output += data
        return bool(data)

    def expect(self, text: str, seconds: float = 60) -> None:
        """Waits until ``text`` has been shown, and forgets what came before its end."""
        deadline = time.monotonic() + seconds
        wanted = text.encode()
        while wanted not in self.output:
            alive = self._read(0.2)
            assert time.monotonic() < deadline and (alive or wanted in self.output), (
                f"no {text!r} in {self.output[-2000:]!r}"
            )
        self.output = self.output.partition(wanted)[2]

    def end(self, seconds: float = 60) -> int:
        """Waits for the command's end; its exit status."""
        deadline = time.monotonic() + seconds
        while self._read(0.1) and self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.output[-2000:]!r}"
        return self.process.wait(60)

    def close(self) -> None:
        """Ends it if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        os.close(self.master)
