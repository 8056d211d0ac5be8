"""``FakeRuntime``: a base.Runtime whose instances are coroutines in a ``World``.

The world outlives the runtime, as instances outlive the engine. What a coroutine cannot do the
capability flags leave out, or it is refused with Unsupported: nothing is made up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gemel.engine.records import stamp
from gemel.errors import (
    CommandNotFound,
    CommandNotRunnable,
    Conflict,
    Failed,
    GemelError,
    InvalidInput,
    NotFound,
    Unsupported,
)
from gemel.model.instance import (
    Capabilities,
    Exit,
    InstanceSpec,
    Process,
    Resources,
    RuntimeName,
    Toolbox,
    Usage,
)
from gemel.runtime import base
from tests.fake.programs import PROGRAMS, Ended, Io, Program

CAPABILITIES = Capabilities(
    host_network=False,
    shared_namespaces=False,
    devices=False,
    live_update=False,
    privileged=False,
    pause=True,
    shares_kernel=True,
    debug=False,
)
_NO_FILE = "no such file or directory"


class Log:
    """A log as runtimes write it (gemel.observe.logs)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open = {1: b"", 2: b""}

    def write(self, stream: int, data: bytes) -> None:
        """Whole lines at once; what is no line yet waits."""
        *lines, rest = (self._open[stream] + data).split(b"\n")
        self._open[stream] = rest
        self._put([(stream, b"F", line) for line in lines])

    def end(self) -> None:
        """What had no line's end."""
        self._put([(n, b"P", rest) for n, rest in self._open.items() if rest])

    def _put(self, lines: list[tuple[int, bytes, bytes]]) -> None:
        now = stamp(time.time_ns()).replace("Z", "+00:00").encode()
        names = {1: b"stdout", 2: b"stderr"}
        with self._path.open("ab") as file:
            for stream, kind, text in lines:
                file.write(b"%s %s %s %s\n" % (now, names[stream], kind, text))


class FakeStream:
    """base.ExecSession: what a program writes, from now on."""

    pid = 1

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._over = False
        self.run: Run | None = None
        self.size: tuple[int, int] | None = None

    def put(self, piece: tuple[int, bytes] | None) -> None:
        self._pieces.put_nowait(piece)

    async def read(self) -> tuple[int, bytes] | None:
        if self._over:
            return None
        piece = await self._pieces.get()
        self._over = piece is None
        return piece

    async def write(self, data: bytes) -> None:
        if self.run is None or self.run.ended:
            raise Failed("its standard input is closed")
        self.run.io.feed(data)

    async def close_stdin(self) -> None:
        if self.run is not None:
            self.run.io.feed_end()

    async def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    async def close(self) -> None:
        if self.run is not None:
            self.run.streams.discard(self)

    async def wait(self) -> int:
        assert self.run is not None
        return (await self.run.wait()).status

    async def kill(self, signal: int) -> None:
        assert self.run is not None
        self.run.kill(signal)


class Run:
    """A program that runs, or has."""

    def __init__(self, process: Process, program: Program, log: Log | None, first: bool) -> None:
        self.io = Io(process.argv, self._write, first=first)
        self.streams: set[FakeStream] = set()
        self.paused = False
        self.execs: list[Run] = []
        self._log = log
        self._exit: Exit | None = None
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._run(program))
        if not process.stdin:
            self.io.feed_end()

    @property
    def ended(self) -> bool:
        return self._exit is not None

    def _write(self, stream: int, data: bytes) -> None:
        if self._log is not None:
            self._log.write(stream, data)
        for one in self.streams:
            one.put((stream, data))

    async def _run(self, program: Program) -> None:
        try:
            self.end(await program(self.io))
        except Ended as end:
            self.end(end.status)
        except NotImplementedError as error:
            self._write(2, str(error).encode())
            self.end(255, error=str(error))

    def end(self, status: int, *, oom: bool = False, error: str = "") -> None:
        """It has ended so; the first end counts."""
        if self._exit is not None:
            return
        self._exit = Exit(status=status, finished_at=time.time(), oom=oom, error=error)
        for one in self.execs:
            one.kill(9)
        if self._log is not None:
            self._log.end()
        for stream in self.streams:
            stream.put(None)
        self._over.set()
        if self._task is not asyncio.current_task():
            self._task.cancel()

    def kill(self, signal: int) -> None:
        if signal == 9:
            self.end(137)
        elif not self.ended:
            self.io.signal(signal)

    def freeze(self, frozen: bool) -> None:
        self.paused = frozen
        for one in (self, *self.execs):
            one.io.thawed.clear() if frozen else one.io.thawed.set()

    def watch(self, stream: FakeStream) -> FakeStream:
        """Connects a stream from now on."""
        stream.run = self
        if self.ended:
            stream.put(None)
        else:
            self.streams.add(stream)
        return stream

    async def wait(self) -> Exit:
        await self._over.wait()
        assert self._exit is not None
        return self._exit

    async def close(self) -> None:
        self.end(137)
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class World:
    """What there is, whichever runtime looks at it.

    programs: what the images have, by name; tests add theirs. failures: errors that the next
    starts raise, one each.
    """

    def __init__(self) -> None:
        self.programs: dict[str, Program] = dict(PROGRAMS)
        self.runs: dict[str, Run] = {}
        self.failures: list[GemelError] = []

    def program(self, name: str) -> Program:
        """Raises CommandNotFound, CommandNotRunnable in the words of all runtimes."""
        plain = name.removeprefix("/bin/")
        if plain in self.programs:
            return self.programs[plain]
        if name == "/etc/passwd":
            raise CommandNotRunnable(f'exec: "{name}": permission denied')
        if "/" in name:
            raise CommandNotFound(f'exec: "{name}": stat {name}: {_NO_FILE}')
        raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')

    def end(self, id: str, status: int, *, oom: bool = False) -> None:
        """Has an instance end by itself."""
        self.runs[id].end(status, oom=oom)

    async def close(self) -> None:
        """Ends all."""
        for run in self.runs.values():
            for one in (*run.execs, run):
                await one.close()
        self.runs.clear()


class FakeRuntime:
    """See the module's text."""

    def __init__(
        self,
        world: World,
        name: RuntimeName = RuntimeName.CONTAINER,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.world = world
        self._mine: set[str] = set()
        self._early: dict[str, list[FakeStream]] = {}

    async def prepare(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Instances go on."""
        self._mine.clear()

    async def create(self, spec: InstanceSpec) -> None:
        spec.layer.mkdir(parents=True, exist_ok=True)

    async def start(self, spec: InstanceSpec) -> int:
        early = self._early.pop(spec.id, [])
        try:
            run = self._begin(spec)
        except GemelError:
            for stream in early:
                stream.put(None)
            raise
        for stream in early:
            run.watch(stream)
        self.world.runs[spec.id] = run
        self._mine.add(spec.id)
        return 4_000_000 + len(self.world.runs)  # no process of the host has it

    def _begin(self, spec: InstanceSpec) -> Run:
        if (run := self.world.runs.get(spec.id)) and not run.ended:
            raise Conflict("it runs already")
        if self.world.failures:
            raise self.world.failures.pop(0)
        program = self.world.program(spec.process.argv[0])
        return Run(spec.process, program, Log(spec.log), first=not spec.init)

    async def adopt(self, spec: InstanceSpec) -> bool:
        self._mine.add(spec.id)
        run = self.world.runs.get(spec.id)
        return run is not None and not run.ended

    async def wait(self, id: str) -> Exit:
        if id not in self._mine or id not in self.world.runs:
            raise NotFound("it was never started")
        return await self.world.runs[id].wait()

    async def cleanup(self, id: str) -> None:
        self._mine.discard(id)
        if run := self.world.runs.pop(id, None):
            await run.close()

    async def remove(self, spec: InstanceSpec) -> None:
        if spec.layer.exists():
            spec.layer.rmdir()

    def _running(self, id: str) -> Run:
        run = self.world.runs.get(id)
        if run is None or run.ended:
            raise Conflict("it does not run")
        return run

    async def kill(self, id: str, signal: int) -> None:
        if not 1 <= signal <= 64:
            raise InvalidInput(f"there is no signal {signal}")
        self._running(id).kill(signal)

    async def pause(self, id: str) -> None:
        run = self._running(id)
        if run.paused:
            raise Conflict("it is paused already")
        run.freeze(True)

    async def resume(self, id: str) -> None:
        run = self._running(id)
        if not run.paused:
            raise Conflict("it is not paused")
        run.freeze(False)

    async def attach(self, id: str) -> base.Stream:
        stream = FakeStream()
        if run := self.world.runs.get(id):
            return run.watch(stream)
        self._early.setdefault(id, []).append(stream)
        return stream

    async def exec(self, id: str, process: Process) -> base.ExecSession:
        run = self._running(id)
        if run.paused:
            raise Conflict("it is paused", resolution="unpause it first")
        user = process.user.partition(":")[0]
        if user not in ("", "root") and not user.isdigit():
            raise InvalidInput(f"unable to find user {user}: no matching entries in passwd file")
        made = Run(process, self.world.program(process.argv[0]), None, first=False)
        run.execs.append(made)
        return made.watch(FakeStream())

    async def resize(self, id: str, rows: int, columns: int) -> None:
        self._running(id).io.signal(28)

    def healthy(self, id: str) -> None:
        """Nothing is made of it."""

    def boot(self, id: str) -> tuple[str, str]:
        return "", ""

    async def usage(self, id: str) -> Usage:
        self._running(id)
        raise _not_here("figures of what it uses")

    async def processes(self, id: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        self._running(id)
        raise _not_here("processes")

    async def update(self, id: str, resources: Resources) -> None:
        raise _not_here("limits")

    async def debug(
        self, spec: InstanceSpec, toolbox: Toolbox, process: Process, running: bool
    ) -> base.ExecSession:
        raise _not_here("debug sessions")

    async def read_archive(
        self, spec: InstanceSpec, path: str, running: bool
    ) -> AsyncIterator[bytes]:
        raise _not_here("files")
        yield b""  # makes it a generator

    async def write_archive(
        self,
        spec: InstanceSpec,
        path: str,
        tar: AsyncIterator[bytes],
        running: bool,
        *,
        keep: bool = True,
    ) -> None:
        raise _not_here("files")

    async def read_root(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        raise _not_here("files")
        yield b""

    async def read_changes(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        raise _not_here("files")
        yield b""

    async def stat_path(self, spec: InstanceSpec, path: str, running: bool) -> Any:
        raise _not_here("files")


def _not_here(what: str) -> Unsupported:
    return Unsupported(f"the fake runtime has no {what}")
