"""Connections to a relay: one for each attach, exec or question.

A connection carries one session, so its socket's own flow control slows
nobody else. Reading is pulled; a task of the connection's own takes frames
apart until the windows are full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from gemel.errors import (
    CommandNotFound,
    CommandNotRunnable,
    Conflict,
    Failed,
    GemelError,
    InvalidInput,
    NotFound,
)
from gemel.runtime.microvm.protocol import (
    CONTROL,
    FIRST_EXEC,
    LAST,
    PAYLOAD_MAX,
    SERVICE,
    WINDOW,
    Decoder,
    ErrorKind,
    Frame,
    FromGuest,
    ToGuest,
    decode_error,
    decode_exit,
    decode_u32,
    encode,
    encode_size,
    encode_u32,
)

#: Frames that engine and relay alone speak (guest/relay/wire.h).
ATTACH, KILL, SAVE, ATTACHED, SAVED = 32, 33, 34, 96, 97
#: Seconds for a snapshot: the service stands still for far less of it.
SAVE_TIMEOUT = 40.0
ANSWER_TIMEOUT = 15.0
NOT_RUNNING = "it does not run"
READ_SIZE = 65536
#: Output of an attached session that is kept before its socket is read no more.
BACKLOG = 1 << 20
#: Output and error pipe of a program in the guest, both full.
PIPES = 512 << 10
#: Credit is given back in lumps of at least so many bytes; the guest has the rest of its window.
LUMP = WINDOW // 4


async def connect(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the relay of the run folder. Raises NotFound if there is none."""
    try:
        # by way of a descriptor: a socket's path has 107 bytes at most
        held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(NOT_RUNNING, details=str(folder)) from error
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await asyncio.open_unix_connection(
                f"/proc/self/fd/{held}/relay.sock", limit=2 * READ_SIZE
            )
    except (OSError, TimeoutError) as error:
        raise NotFound(NOT_RUNNING, details=str(error)) from error
    finally:
        os.close(held)


class Connection:
    """Frames both ways over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder((*FromGuest, ATTACHED, SAVED))
        self._frames: deque[Frame] = deque()

    @classmethod
    async def open(cls, folder: Path) -> Connection:
        """Raises NotFound if nothing runs there."""
        return cls(*await connect(folder))

    async def send(self, *frames: bytes) -> None:
        """Raises Failed if the relay is gone."""
        try:
            self._writer.write(b"".join(frames))
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise Failed("the micro VM has ended", details=str(error)) from error

    async def receive(self) -> Frame | None:
        """The next frame; None at the end."""
        while not self._frames:
            try:
                data = await self._reader.read(READ_SIZE)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()

    async def close(self) -> None:
        """Never raises."""
        with contextlib.suppress(Exception):
            self._writer.close()
            await self._writer.wait_closed()


async def ask(folder: Path, question: ToGuest, answer: FromGuest) -> bytes:
    """Asks the guest, and gives back the payload of its answer. Raises NotFound, Failed."""
    connection = await Connection.open(folder)
    payload = b""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await connection.send(encode(CONTROL, question))
            while frame := await connection.receive():
                if frame.type == FromGuest.ERROR:
                    raise Conflict("the micro VM does not run its service now")
                if frame.type == answer:
                    payload += frame.payload
                    if answer is not FromGuest.PROCESSES or frame.flags & LAST:
                        return payload
        raise NotFound(NOT_RUNNING)
    except TimeoutError:
        raise Failed(
            "the micro VM's agent does not answer", details=f"{question.name}: {ANSWER_TIMEOUT:g} s"
        ) from None
    finally:
        await connection.close()


async def save(folder: Path, targets: tuple[int, int, int]) -> None:
    """Takes a snapshot of a VM whose service runs, into descriptors of this process.

    targets: for memory, the devices' state (both files in memory), and the disk. Raises
    NotFound, Conflict (it cannot be saved now), Failed; the service goes on all the same.
    """
    connection = await Connection.open(folder)
    try:
        async with asyncio.timeout(SAVE_TIMEOUT):
            await connection.send(encode(CONTROL, SAVE, b"".join(map(encode_u32, targets))))
            while frame := await connection.receive():
                if frame.type == FromGuest.ERROR:
                    raise Conflict("it cannot be saved", details=decode_error(frame.payload)[1])
                if frame.type == SAVED:
                    return
        raise NotFound(NOT_RUNNING)
    except TimeoutError:
        raise Failed("it cannot be saved", details="its relay does not answer") from None
    finally:
        await connection.close()


async def tell(folder: Path, *frames: bytes) -> None:
    """Sends frames and waits until the relay has read them. Raises NotFound."""
    reader, writer = await connect(folder)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            writer.write(b"".join(frames))
            writer.write_eof()
            await reader.read()  # it closes when it has taken all
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()


class Session:
    """A program's streams over a connection (base.Stream, base.ExecSession)."""

    def __init__(self, number: int, *, tty: bool = False) -> None:
        self._number = number
        self._tty = tty
        self._on_end: Callable[[Session], None] = lambda session: None
        self._opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._output: deque[tuple[int, bytes]] = deque()
        self._queued = 0
        self._credit = WINDOW
        self._lent = self._ungranted = 0
        self._changed = asyncio.Condition()
        self._pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ended = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def open(
        self, folder: Path, frames: list[bytes], patience: float = ANSWER_TIMEOUT
    ) -> None:
        """Connects, sends ``frames`` and waits until it has started, ``patience`` seconds.

        Raises NotFound, CommandNotFound, CommandNotRunnable, Failed; it is closed then.
        """
        try:
            connection = await Connection.open(folder)
            self._opened.set_result(connection)
            self._task = asyncio.create_task(self._run(connection))
            await connection.send(*frames)
            await self._started(patience)
        except BaseException:
            await self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether it was let go of."""
        return self._closed

    @property
    def pid(self) -> int:
        """The program's process id in the guest."""
        return self._pid.result()

    async def _run(self, connection: Connection) -> None:
        """Takes frames until the end; stands still while an attached reader does not read."""
        try:
            while frame := await connection.receive():
                async with self._changed:
                    self._take(frame)
                    if self._closed:
                        await self._discard(connection)
                    self._changed.notify_all()
                    await self._changed.wait_for(lambda: self._queued < BACKLOG)
                if self._exit.done():
                    break
        except Failed as error:
            self._fail(error)
        finally:
            self._fail(Failed("the micro VM has ended"))
            self._ended = True
            async with self._changed:
                self._changed.notify_all()
            if self._closed:
                await connection.close()
            self._on_end(self)

    def on_end(self, call: Callable[[Session], None]) -> None:
        """Has ``call`` called when the program has ended or the connection is gone."""
        self._on_end = call
        if self._ended:
            call(self)

    async def _discard(self, connection: Connection) -> None:
        """Output that nobody reads any more: the program is not to wait for that."""
        size, self._queued = self._queued, 0
        self._output.clear()
        if size and self._number != SERVICE:
            with contextlib.suppress(Failed):
                credit = encode(self._number, ToGuest.CREDIT, encode_u32(size))
                await connection.send(credit)

    def _fail(self, error: Exception) -> None:
        if not self._pid.done():
            self._pid.set_exception(error)
            self._pid.exception()  # it may be that nobody asks
        if not self._exit.done():
            self._exit.set_result(137)

    def _take(self, frame: Frame) -> None:
        match frame.type:
            case FromGuest.STDOUT | FromGuest.STDERR:
                self._output.append((1 if frame.type == FromGuest.STDOUT else 2, frame.payload))
                self._queued += len(frame.payload)
            case FromGuest.CREDIT:
                self._credit += decode_u32(frame.payload)
            case FromGuest.EXIT:
                if not self._exit.done():
                    self._exit.set_result(decode_exit(frame.payload)[0])
            case FromGuest.ERROR:
                self._fail(start_error(*decode_error(frame.payload)))
            case FromGuest.STARTED | 96 if not self._pid.done():
                self._pid.set_result(decode_u32(frame.payload) if frame.payload else 0)

    async def _started(self, patience: float) -> None:
        """Waits until it runs. Raises CommandNotFound, CommandNotRunnable, Failed."""
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._pid)
        except TimeoutError:
            raise Failed("the micro VM's agent does not start the program") from None

    async def read(self) -> tuple[int, bytes] | None:
        """The next output; None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._output) or self._ended or self._closed)
            if not self._output or self._closed:
                return None
            stream, data = self._output.popleft()
            self._queued -= len(data)
            self._changed.notify_all()
        if self._number != SERVICE and not self._ended:
            with contextlib.suppress(Failed):
                await self._grant(len(data))
        return stream, data

    async def _grant(self, size: int) -> None:
        """Lets the program send more, less what it was lent."""
        owed = min(size, self._lent)
        self._lent -= owed
        self._ungranted += size - owed
        if self._ungranted >= LUMP:
            credit = encode(self._number, ToGuest.CREDIT, encode_u32(self._ungranted))
            self._ungranted = 0
            await (await self._opened).send(credit)

    async def _lend(self) -> None:
        """The end of a program comes after its last output. So that it can come though
        nobody reads, what its pipes can hold is let through once.
        """
        if self._lent or self._number == SERVICE or self._ended:
            return
        with contextlib.suppress(Failed):
            await self._grant(PIPES)
            self._lent = PIPES

    async def write(self, data: bytes) -> None:
        """Writes to standard input, as far as the guest takes it. Raises Failed at its end."""
        view = memoryview(data)
        await asyncio.shield(self._opened)
        while view:
            async with self._changed:
                await self._changed.wait_for(lambda: self._credit > 0 or self._ended)
                if self._ended or self._closed:
                    raise Failed("standard input is closed")
                size = min(len(view), self._credit, PAYLOAD_MAX)
                self._credit -= size
            frame = encode(self._number, ToGuest.STDIN, bytes(view[:size]))
            await (await self._opened).send(frame)
            view = view[size:]

    async def close_stdin(self) -> None:
        """Ends standard input."""
        await self._send_if_open(encode(self._number, ToGuest.STDIN_EOF))

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size."""
        await self._send_if_open(encode(self._number, ToGuest.RESIZE, encode_size(rows, columns)))

    async def kill(self, signal: int) -> None:
        """Sends a signal to the program."""
        await self._send_if_open(encode(self._number, ToGuest.SIGNAL, encode_u32(signal)))
        await self._lend()

    async def _send_if_open(self, frame: bytes) -> None:
        if not self._ended and not self._closed:
            with contextlib.suppress(Failed):
                await (await asyncio.shield(self._opened)).send(frame)

    async def wait(self) -> int:
        """The exit status; 137 if the VM ended."""
        await self._lend()
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Lets go. A program of an exec goes on without us (``wait`` too), but for one with
        a terminal, which gets SIGHUP."""
        if self._closed:
            return
        running = self._task is not None and not self._ended
        if not running or self._number == SERVICE or self._tty:
            await self.end()
            return
        self._closed = True
        with contextlib.suppress(Failed):
            await self._discard(self._opened.result())
            await self._opened.result().send(encode(self._number, ToGuest.STDIN_EOF))
        async with self._changed:
            self._changed.notify_all()

    async def end(self, *, hang_up: bool = True) -> None:
        """Ends the connection. hang_up: a program of an exec that still runs gets SIGHUP."""
        self._closed = True
        if not self._opened.done():
            self._opened.set_exception(Failed("the stream is closed"))
            self._opened.exception()  # it may be that nobody asks
        hang_up = hang_up and self._number != SERVICE and not self._ended
        if hang_up and self._opened.exception() is None:
            with contextlib.suppress(Failed):
                await self._opened.result().send(encode(self._number, ToGuest.CLOSE))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(Failed("the stream is closed"))
        if self._opened.exception() is None:
            await self._opened.result().close()
        async with self._changed:
            self._changed.notify_all()


def start_error(kind: ErrorKind, text: str) -> GemelError:
    """Why a program did not start."""
    match kind:
        case ErrorKind.NOT_FOUND:
            return CommandNotFound("the command is not in the image", details=text)
        case ErrorKind.NOT_RUNNABLE:
            return CommandNotRunnable("the command cannot be run", details=text)
        case _ if text.startswith("unable to find"):  # a user or a group
            return InvalidInput(text, resolution="name one that is in the image, or a number")
        case _:
            return Failed("the program could not be started", details=text)


ATTACH_FRAMES = [encode(SERVICE, ATTACH)]


async def attach(folder: Path) -> Session:
    """The service's streams, from now on. Raises NotFound, Failed."""
    session = Session(SERVICE)
    await session.open(folder, ATTACH_FRAMES)
    return session


async def execute(folder: Path, frames: list[bytes]) -> Session:
    """Starts a program; frames: an EXEC for session 2. Raises what ``Session.open`` raises."""
    session = Session(FIRST_EXEC)
    await session.open(folder, frames)
    return session
