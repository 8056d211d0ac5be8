"""Further programs in running containers (facade.Execs)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field

from gemel.engine import debugging, otlp, resolve
from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.engine.records import Container
from gemel.engine.spec import hostname
from gemel.errors import CommandNotFound, Conflict, GemelError, InvalidInput, NotFound
from gemel.model.docker import DebugCreate, ExecCreate
from gemel.model.instance import Process
from gemel.runtime.base import ExecSession, Stream

SETTLE = 10.0
"""Seconds in which a program that has closed its output is waited for."""
KEEP = 500
"""Ended execs that are remembered, so that their exit code can be asked for."""


@dataclass
class Exec:
    """One exec: asked for, running or over."""

    id: str
    one: Container
    request: ExecCreate
    session: ExecSession | None = None
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    size: tuple[int, int] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class _Attached:
    """What a client has of an exec (runtime.base.Stream).

    Its output ends once the exit code is known: a client asks for it right then, and takes
    none for 0.
    """

    def __init__(self, exec: Exec, session: ExecSession) -> None:
        self._exec = exec
        self._session = session
        self.write = session.write
        self.close_stdin = session.close_stdin
        self.resize = session.resize
        self.close = session.close

    async def read(self) -> tuple[int, bytes] | None:
        """See runtime.base.Stream."""
        piece = await self._session.read()
        if piece is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE):
                    await self._exec.done.wait()
        return piece


class Execs:
    """See facade.Execs."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._execs: dict[str, Exec] = {}

    def _find(self, id: str) -> Exec:
        try:
            return self._execs[id]
        except KeyError:
            raise NotFound(f"No such exec instance: {id}") from None

    async def create(self, ref: str, request: ExecCreate) -> str:
        """Remembers what is to run. Raises Conflict if the container does not run."""
        one = self.core.container(ref)
        if not one.state.running:
            raise Conflict(f"Container {one.id} is not running")
        if one.state.status == "paused":
            raise Conflict(f"Container {one.name} is paused, unpause the container before exec")
        if not request.cmd:
            raise InvalidInput("No exec command specified")
        return self._remember(one, request)

    async def create_debug(self, ref: str, request: DebugCreate) -> str:
        """The same for a program of a toolbox. Raises Conflict, NotFound, Unsupported."""
        one = self.core.container(ref)
        debugging.check(self.core, one, request)
        return self._remember(one, request)

    def _remember(self, one: Container, request: ExecCreate) -> str:
        for item in request.env or []:
            resolve.merge_env([], [item])
        self._forget_old()
        id = secrets.token_hex(32)
        size = request.console_size
        self._execs[id] = Exec(
            id, one, request, size=(size[0], size[1]) if size and len(size) == 2 else None
        )
        self.core.emit(one, f"exec_create: {' '.join(request.cmd or [])}", execID=id)
        return id

    def _forget_old(self) -> None:
        over = [e.id for e in self._execs.values() if e.exit_code is not None]
        for id in over[: max(0, len(self._execs) - KEEP)]:
            del self._execs[id]

    def _process(self, one: Container, exec: Exec, tty: bool) -> Process:
        request = exec.request
        told = otlp.environment(self.core, one)
        base = [f"HOSTNAME={hostname(one)}", *(one.request.env or []), *told]
        env = resolve.merge_env(base, request.env or [])
        if tty and not any(item.startswith("TERM=") for item in env):
            env.append("TERM=xterm")
        return Process(
            argv=tuple(request.cmd or ()),
            env=tuple(env),
            cwd=request.working_dir or one.request.working_dir or "/",
            user=request.user or one.request.user,
            groups=tuple(
                (one.request.host_config.group_add or []) if one.request.host_config else ()
            ),
            tty=tty,
            stdin=request.attach_stdin,
            size=exec.size,
            privileged=request.privileged,
        )

    async def start(
        self, id: str, tty: bool | None = None, size: tuple[int, int] | None = None
    ) -> tuple[bool, Stream]:
        """Starts it. Raises Conflict if it was started before or the container ended."""
        exec = self._find(id)
        one = exec.one
        if exec.running or exec.exit_code is not None:
            raise Conflict(f"exec instance {id} has been started already")
        if not one.state.running and not _of_ended(exec):
            raise Conflict(f"Container {one.id} is not running")
        has_tty = exec.request.tty if tty is None else tty
        exec.size = begun_with = size or exec.size
        exec.running = True
        try:
            session = await self._begin(one, exec, has_tty)
        except GemelError as error:
            exec.running = False
            exec.exit_code = 127 if isinstance(error, CommandNotFound) else 126
            raise
        exec.session = session
        exec.pid = session.pid
        if has_tty and exec.size is not None and exec.size != begun_with:
            await session.resize(*exec.size)  # asked for while it was starting
        self.core.emit(one, f"exec_start: {' '.join(exec.request.cmd or [])}", execID=id)
        self.core.spawn(one, self._until_end(exec, session), "exec")
        return has_tty, _Attached(exec, session)

    async def _begin(self, one: Container, exec: Exec, tty: bool) -> ExecSession:
        if isinstance(exec.request, DebugCreate):
            return await debugging.start(self.core, one, exec.request, tty, exec.size)
        return await self.core.runtime(one).exec(one.id, self._process(one, exec, tty))

    async def _until_end(self, exec: Exec, session: ExecSession) -> None:
        try:
            exec.exit_code = await session.wait()
        except GemelError:
            exec.exit_code = 137
        finally:
            exec.running = False
            exec.done.set()
        self.core.emit(exec.one, "exec_die", execID=exec.id, exitCode=exec.exit_code)

    async def start_detached(self, id: str) -> None:
        """Starts it with nobody reading: output is dropped."""
        exec = self._find(id)
        _, session = await self.start(id)
        self.core.spawn(exec.one, _drop(session), "detached exec")

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Sets the terminal's size."""
        exec = self._find(id)
        exec.size = (rows, columns)
        if exec.session is not None and exec.running:
            await exec.session.resize(rows, columns)

    async def inspect(self, id: str) -> Json:
        """GET /exec/ID/json. Of one whose program has just ended the exit code is waited for."""
        exec = self._find(id)
        if exec.running and exec.session is not None:
            # output ends a moment before the status is known; a client asks right then
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await exec.done.wait()
        command = exec.request.cmd or []
        return {
            "ID": exec.id,
            "Running": exec.running,
            "ExitCode": exec.exit_code,
            "ProcessConfig": {
                "tty": exec.request.tty,
                "entrypoint": command[0] if command else "",
                "arguments": command[1:],
                "privileged": exec.request.privileged,
                "user": exec.request.user,
            },
            "OpenStdin": exec.request.attach_stdin,
            "OpenStderr": exec.request.attach_stderr,
            "OpenStdout": exec.request.attach_stdout,
            "CanRemove": exec.exit_code is not None,
            "ContainerID": exec.one.id,
            "DetachKeys": exec.request.detach_keys,
            "Pid": exec.pid,
            "OfEnded": _of_ended(exec),
        }


def _of_ended(exec: Exec) -> bool:
    """Whether it looks at what an instance left that does not run."""
    return isinstance(exec.request, DebugCreate) and exec.request.ended


async def _drop(session: Stream) -> None:
    try:
        while await session.read() is not None:
            pass
    finally:
        await session.close()
