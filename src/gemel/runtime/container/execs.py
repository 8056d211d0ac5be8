"""Further programs in a container: crun exec, with pipes or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import struct
import termios
from asyncio.subprocess import Process as Child
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from gemel.errors import Conflict, Failed, GemelError
from gemel.host import files, pipes, run
from gemel.host.pipes import Descriptor
from gemel.host.procs import Handle
from gemel.runtime.container.crun import PROGRAM, Crun, logged, refusal

#: Seconds until a program must have been started.
START_TIMEOUT = 60.0

#: Seconds that output may keep coming from children which outlive the program.
LINGER = 1.0


class Session:
    """``ExecSession``: the streams and the end of one program."""

    def __init__(
        self,
        pid: int,
        child: Child,
        outputs: list[tuple[int, Descriptor]],
        stdin: Descriptor | None,
        terminal: Descriptor | None,
        own: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """outputs: stream and where it comes from. own: takes a coroutine to see to its end."""
        self._pid = pid
        self._child = child
        self._outputs = outputs
        self._stdin = stdin
        self._terminal = terminal
        self._own = own
        self._given_up = False
        self._handle: Handle | None = None
        with contextlib.suppress(ProcessLookupError):
            self._handle = Handle(pid)
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        own(self._reap())

    @property
    def pid(self) -> int:
        return self._pid

    async def _reap(self) -> None:
        status = await self._child.wait()
        if self._handle is not None:
            self._handle.close()
        if not self._end.done():
            self._end.set_result(status if status >= 0 else 128 - status)
        for _, output in self._outputs:
            output.wake()

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def kill(self, signal: int) -> None:
        if self._handle is not None and not self._end.done():
            self._handle.send(signal)

    async def read(self) -> tuple[int, bytes] | None:
        while self._outputs and not self._given_up:
            for entry in list(self._outputs):
                stream, source = entry
                data = source.read_some()
                if data:
                    # take turns, so that neither stream starves the other
                    self._outputs.remove(entry)
                    self._outputs.append(entry)
                    return stream, data
                if data == b"":
                    self._outputs.remove(entry)
                    source.close()
            if self._outputs:
                await self._more()
        return None

    async def _more(self) -> None:
        """Waits for output; after the program's end not for long, since nobody may write it."""
        over = self._end.done()
        try:
            await pipes.readable([source for _, source in self._outputs], LINGER if over else None)
        except TimeoutError:
            self._given_up = True

    async def write(self, data: bytes) -> None:
        if self._stdin is None:
            raise Failed("standard input is closed")
        await self._stdin.write_all(data)

    async def close_stdin(self) -> None:
        if self._stdin is not None and self._terminal is None:
            self._stdin.close()
            self._stdin = None

    async def resize(self, rows: int, columns: int) -> None:
        if self._terminal is not None and self._terminal.fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(
                    self._terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0)
                )

    async def close(self) -> None:
        if self._given_up:
            return
        await self.close_stdin()
        self._given_up = True
        self._own(self._drain())

    async def _drain(self) -> None:
        """The program goes on without a reader: as under Docker it is neither stopped nor stuck."""
        try:
            while self._outputs:
                for entry in list(self._outputs):
                    data = entry[1].read_some()
                    if data == b"":
                        self._outputs.remove(entry)
                if self._outputs and not self._end.done():
                    await pipes.readable([source for _, source in self._outputs])
                elif self._end.done():
                    return
        finally:
            for _, source in self._outputs:
                source.close()
            if self._terminal is not None:
                self._terminal.close()


async def start(
    crun: Crun,
    id: str,
    process: dict[str, Any],
    folder: Path,
    *,
    stdin: bool,
    own: Callable[[Coroutine[Any, Any, None]], None],
) -> Session:
    """Starts a program; process: OCI's object. folder: for files that live a moment.

    Raises CommandNotFound, CommandNotRunnable, Conflict, Failed.
    """
    request = folder / f"exec-{secrets.token_hex(6)}.json"
    files.write(request, msgspec.json.encode(process))
    try:
        command = ["exec", "--process", str(request)]
        return await launch(crun, command, id, process, folder, stdin=stdin, own=own)
    finally:
        request.unlink(missing_ok=True)


async def launch(
    crun: Crun,
    arguments: list[str],
    id: str,
    process: dict[str, Any],
    folder: Path,
    *,
    stdin: bool,
    own: Callable[[Coroutine[Any, Any, None]], None],
) -> Session:
    """A command of crun's that starts a program with our ends of its streams (exec, run).

    process: what that program is, as OCI has it. Raises as ``start`` does.
    """
    name = f"exec-{secrets.token_hex(6)}"
    log = folder / f"{name}.log"
    tty = bool(process["terminal"])
    console = _listen(folder, name) if tty else None
    try:
        opened = _Ends(tty, stdin)
        command = [PROGRAM, *crun.arguments(log), *arguments]
        command += ["--pid-file", f"/proc/self/fd/{opened.pid_write}"]
        if console is not None:
            command += ["--console-socket", str(folder / name)]
        try:
            child = await run.spawn(
                [*command, id],
                stdin=opened.stdin_read if opened.stdin_read >= 0 else None,
                stdout=opened.stdout_write if opened.stdout_write >= 0 else None,
                stderr=opened.stderr_write if opened.stderr_write >= 0 else None,
                pass_fds=[opened.pid_write],
            )
        except BaseException:
            opened.close_all()
            raise
        opened.close_childs()
        try:
            return await _begun(child, opened, console, log, process, own)
        except BaseException:
            opened.close_all()
            if child.returncode is None:
                child.kill()
            await child.wait()
            raise
    finally:
        if console is not None:
            console.close()
            (folder / name).unlink(missing_ok=True)
        log.unlink(missing_ok=True)


async def _begun(
    child: Child,
    opened: _Ends,
    console: socket.socket | None,
    log: Path,
    process: dict[str, Any],
    own: Callable[[Coroutine[Any, Any, None]], None],
) -> Session:
    """Waits until crun has told the pid, and puts the session together."""
    terminal: Descriptor | None = None
    try:
        async with asyncio.timeout(START_TIMEOUT):
            text = await opened.read_pid()
            if text.strip().isdigit() and console is not None:
                terminal = Descriptor(await _receive(console))
    except TimeoutError:
        raise Failed(f"crun took longer than {START_TIMEOUT:g} s to start a program") from None
    if not text.strip().isdigit():
        await child.wait()
        raise _refused(logged(log), str(process["args"][0]) if process["args"] else "")
    if terminal is not None:
        return Session(int(text), child, [(1, terminal)], terminal, terminal, own)
    outputs = [(1, Descriptor(opened.stdout_read)), (2, Descriptor(opened.stderr_read))]
    stdin = Descriptor(opened.stdin_write) if opened.stdin_write >= 0 else None
    return Session(int(text), child, outputs, stdin, None, own)


def _refused(message: str, program: str) -> GemelError:
    if "is paused" in message:
        return Conflict("the container is paused", message, "unpause the container before exec")
    if "is not running" in message or "does not exist" in message:
        return Conflict("the container is not running", message)
    return refusal(message, program)


class _Ends:
    """Both ends of the pipes between us and crun; -1 for what is not used."""

    def __init__(self, tty: bool, stdin: bool) -> None:
        self.stdin_read = self.stdin_write = -1
        self.stdout_read = self.stdout_write = -1
        self.stderr_read = self.stderr_write = -1
        self.pid_read, self.pid_write = os.pipe()
        if not tty:
            self.stdout_read, self.stdout_write = os.pipe()
            self.stderr_read, self.stderr_write = os.pipe()
            if stdin:
                self.stdin_read, self.stdin_write = os.pipe()

    async def read_pid(self) -> bytes:
        """What crun writes into its pid file, once the program is about to run."""
        descriptor = Descriptor(self.pid_read)
        self.pid_read = -1
        try:
            return await descriptor.read()
        finally:
            descriptor.close()

    def close_childs(self) -> None:
        pipes.close(self.stdin_read, self.stdout_write, self.stderr_write, self.pid_write)
        self.stdin_read = self.stdout_write = self.stderr_write = self.pid_write = -1

    def close_all(self) -> None:
        self.close_childs()
        pipes.close(self.stdin_write, self.stdout_read, self.stderr_read, self.pid_read)
        self.stdin_write = self.stdout_read = self.stderr_read = self.pid_read = -1


def _listen(folder: Path, name: str) -> socket.socket:
    """A listening socket in ``folder``, whose path may be longer than sockets' paths may be."""
    folder_fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(f"/proc/self/fd/{folder_fd}/{name}")
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        return listener
    finally:
        os.close(folder_fd)


async def _receive(listener: socket.socket) -> int:
    """The terminal that crun sends."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    with connection:
        connected = Descriptor(os.dup(connection.fileno()))
        try:
            await pipes.readable([connected])
        finally:
            connected.close()
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    if not fds:
        raise Failed("crun sent no terminal")
    os.set_inheritable(fds[0], False)
    return int(fds[0])
