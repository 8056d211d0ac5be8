"""The one place that runs programs. Every command is logged as it could be pasted.

Only ``gemel.host`` imports subprocess (a lint contract holds it).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import IO, NamedTuple

from gemel.errors import Failed, Unavailable

log = logging.getLogger("gemel.run")

#: Seconds that a program is given when the caller names no deadline.
DEFAULT_TIMEOUT = 60.0

Descriptor = int | IO[bytes]

#: What ``find`` has found, by program and path: every start of a container asks.
_found: dict[tuple[str, str], str] = {}


class Result(NamedTuple):
    """What a finished program left: exit status (negative: signal) and its output."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def error_text(self) -> str:
        """The last 20 lines of standard error, else of standard output."""
        text = (self.stderr or self.stdout).decode("utf-8", "replace").strip()
        return "\n".join(text.splitlines()[-20:])


def find(program: str) -> str | None:
    """Path of ``program``, looked for in PATH and in the system folders; None without it."""
    path = (
        os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/qemu:/usr/libexec"
    )
    known = _found.get((program, path))
    if known is None or not os.access(known, os.X_OK):
        known = shutil.which(program, path=path)
        if known is not None:
            _found[program, path] = known
    return known


async def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    stdin: Descriptor | None = None,
    stdout: Descriptor | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    check: bool = True,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> Result:
    """Runs a program to its end and gives back its status and output.

    stdout: a descriptor to write to instead of collecting the output. timeout
    is in seconds; a program that takes longer is killed. Raises Unavailable if
    the program does not exist; Failed on a time-out, or with ``check`` on a
    status other than 0.
    """
    process = await spawn(
        argv,
        stdin=asyncio.subprocess.PIPE if input is not None else stdin,
        stdout=stdout if stdout is not None else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
        new_session=new_session,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(input)
    except TimeoutError:
        raise Failed(
            f"{os.path.basename(argv[0])} took longer than {timeout:g} s and was ended",
            details=shlex.join(argv),
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
    result = Result(process.returncode or 0, out or b"", err or b"")
    if check and result.status != 0:
        raise Failed(
            f"{os.path.basename(argv[0])} failed with status {result.status}",
            details=result.error_text,
        )
    return result


async def spawn(
    argv: Sequence[str],
    *,
    stdin: Descriptor | None = None,
    stdout: Descriptor | None = None,
    stderr: Descriptor | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> asyncio.subprocess.Process:
    """Starts a program and gives it back running; the caller owns it.

    stdin, stdout, stderr: a descriptor, ``asyncio.subprocess.PIPE``, or None for
    /dev/null. Raises Unavailable if the program does not exist.
    """
    log.debug("%s", shlex.join(argv))
    null = asyncio.subprocess.DEVNULL
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=null if stdin is None else stdin,
            stdout=null if stdout is None else stdout,
            stderr=null if stderr is None else stderr,
            env=env,
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=new_session,
            limit=1 << 20,
        )
    except FileNotFoundError as error:
        raise Unavailable(
            f"{argv[0]} is not installed",
            details=str(error),
            resolution="`gemel doctor` says which package brings it",
        ) from error
    except PermissionError as error:
        raise Unavailable(f"{argv[0]} may not be run", details=str(error)) from error


async def lines(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: Descriptor | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    new_session: bool = False,
) -> AsyncGenerator[str, None]:
    """Runs a program and yields its output (both streams) line by line, as it comes.

    Raises Failed at the end if the status is not 0, or after ``timeout`` seconds.
    The program is killed when the iteration is given up; with ``new_session``
    all that it started too. A line of more than a mebibyte comes in parts.
    """
    process = await spawn(
        argv,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        cwd=cwd,
        new_session=new_session,
    )
    assert process.stdout is not None
    tail: list[str] = []
    try:
        async with asyncio.timeout(timeout):
            while raw := await _line(process.stdout):
                line = raw.decode("utf-8", "replace").rstrip("\n")
                tail = (tail + [line])[-20:]
                yield line
            await process.wait()
    except TimeoutError:
        raise Failed(
            f"{os.path.basename(argv[0])} took longer than {timeout:g} s and was ended"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                if new_session:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Failed(
            f"{os.path.basename(argv[0])} failed with status {process.returncode}",
            details="\n".join(tail),
        )


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or as much of it as the reader's buffer takes; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(max(1, error.consumed))
