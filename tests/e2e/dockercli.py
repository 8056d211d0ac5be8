"""The docker command line against an engine, with pipes or on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

from tests.engine import EngineProcess

DOCKER = "/usr/bin/docker"
COMPOSE = "/usr/bin/docker-compose"


class Docker:
    """Runs Debian's docker as a user would."""

    def __init__(self, engine: EngineProcess, program: str = DOCKER) -> None:
        self.engine = engine
        self.program = program

    def run(
        self,
        *arguments: str,
        input: bytes | None = None,
        cwd: Path | None = None,
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[bytes]:
        """Status and output, whatever they are."""
        return subprocess.run(
            [self.program, *arguments],
            env=self.engine.env,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            cwd=cwd,
            timeout=timeout,
        )

    def ok(self, *arguments: str, input: bytes | None = None, cwd: Path | None = None) -> str:
        """Standard output; the test fails on another status than 0."""
        done = self.run(*arguments, input=input, cwd=cwd)
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A client that goes on; the caller ends it."""
        return subprocess.Popen(
            [self.program, *arguments],
            env=self.engine.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def terminal(self, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
        """A client on a terminal of its own."""
        return Terminal([self.program, *arguments], self.engine.env, rows, columns)


class Terminal:
    """A program on a pseudo terminal, driven like a person would."""

    def __init__(self, argv: list[str], env: dict[str, str], rows: int, columns: int) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(argv[0], argv, {**env, "TERM": "xterm"})
            finally:
                os._exit(127)
        self.seen = b""
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size; the kernel tells the client by SIGWINCH."""
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        """Keys."""
        os.write(self.fd, text)

    def expect(self, wanted: bytes, timeout: float = 90) -> bytes:
        """Reads until ``wanted`` has come; what came before it is dropped."""
        deadline = time.monotonic() + timeout
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"waited for {wanted!r}, saw {self.seen!r}"
            if self.fd in select.select([self.fd], [], [], left)[0]:
                try:
                    piece = os.read(self.fd, 1 << 16)
                except OSError:
                    piece = b""
                assert piece, f"ended; waited for {wanted!r}, saw {self.seen!r}"
                self.seen += piece
        before, _, self.seen = self.seen.partition(wanted)
        return before

    def wait(self, timeout: float = 90) -> int:
        """Exit status of the client."""
        deadline = time.monotonic() + timeout
        while True:
            if self.fd >= 0 and self.fd in select.select([self.fd], [], [], 0.02)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16)
                except OSError:
                    os.close(self.fd)
                    self.fd = -1
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"the client goes on: {self.seen!r}"

    def close(self) -> None:
        """Ends it, however it is."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
