"""Starting a relay, and what it leaves in the instance's run folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from gemel.errors import Failed, GemelError, Unavailable
from gemel.host.run import run
from gemel.model.instance import Exit
from gemel.runtime.microvm.channel import connect, start_error
from gemel.runtime.microvm.machine import Job, Limits, Machine, relay_records
from gemel.runtime.microvm.protocol import ErrorKind, Record, encode_records

#: How the reason begins why a VM was booted cold, if only its shares kept it from being cloned.
NOT_PLUGGED = "the VMM takes no device while it runs"
#: The relay has ended all of its processes this long after its last word, in seconds.
END_TIMEOUT = 15.0


async def launch(
    program: Path,
    machine: Machine,
    job: Job,
    listening: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Starts a VM under a relay of its own and waits until its service runs; the VMM's pid.

    listening: called when the relay can be connected to, long before the service runs.
    If the wait is given up the relay ends the VM. Raises CommandNotFound,
    CommandNotRunnable, Failed, Unavailable.
    """
    reader, transport = await begin(program, job, relay_records(machine, job))
    try:
        if listening is not None:
            await listening()
        return await outcome(reader, job.limits)
    finally:
        transport.close()


async def begin(
    program: Path, job: Job, records: Iterable[Record], passed: Sequence[int] = ()
) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Starts a relay, which can be connected to from then on; what it tells of the start.

    When the transport is closed before the service runs the relay ends the VM. passed: further
    descriptors for it. Raises Failed.
    """
    reader_fd, writer_fd = os.pipe2(os.O_CLOEXEC)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reader_fd, "rb", buffering=0)
    )
    try:
        fds = [writer_fd, *passed]
        if job.guest is not None:
            fds += [job.guest.memory, job.guest.state]
        argv = [str(program), str(writer_fd)]
        await run(argv, input=encode_records(records), pass_fds=fds)
    except BaseException:
        transport.close()
        raise
    finally:
        os.close(writer_fd)
    return reader, transport


async def outcome(reader: asyncio.StreamReader, limits: Limits) -> int:
    """The VMM's pid, once its service runs. Raises what ``launch`` does."""
    # each boot is tried twice; the relay keeps these deadlines itself
    patience = 2 * limits.boot + 2 * limits.config + limits.clone + END_TIMEOUT
    try:
        async with asyncio.timeout(patience):
            answer = (await reader.read(65536)).decode("utf-8", "replace").strip()
    except TimeoutError:
        raise Failed("the micro VM's relay does not answer") from None
    word, _, rest = answer.partition(" ")
    if word == "started" and rest.isdigit():
        return int(rest)
    kind, _, text = rest.partition(" ")
    raise error(kind if word == "error" else "", text or answer)


def error(kind: str, text: str) -> GemelError:
    """What a relay's word for an error means."""
    match kind:
        case "notfound":
            return start_error(ErrorKind.NOT_FOUND, text)
        case "notrunnable":
            return start_error(ErrorKind.NOT_RUNNABLE, text)
        case "failed" if text.startswith("unable to find"):
            return start_error(ErrorKind.FAILED, text)
        case "timeout":
            return Unavailable(
                "the micro VM did not come up in time",
                details=text,
                resolution="the host may be overloaded; `gemel doctor` tests a boot",
            )
        case _:
            silent = "its relay has ended without a word: was it killed?"
            return Failed("the micro VM could not be started", details=text or silent)


async def ended(folder: Path) -> None:
    """Waits until the folder's relay is gone; returns at once if there is none. Raises nothing."""
    try:
        reader, writer = await connect(folder)
    except GemelError:
        return
    try:
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
    finally:
        writer.close()


def read_exit(folder: Path) -> Exit:
    """How it ended, as the relay wrote it; without that, that the relay was killed."""
    try:
        lines = (folder / "exit").read_text(errors="replace").splitlines()
        values = {key: value for key, _, value in (line.partition(" ") for line in lines)}
        return Exit(
            status=int(values["status"]),
            finished_at=float(values["finished"]),
            oom=values["oom"] == "1",
            error=values.get("error", ""),
        )
    except (OSError, KeyError, ValueError):
        return Exit(
            status=137, finished_at=time.time(), error="the micro VM's relay ended unexpectedly"
        )


def read_boot(folder: Path) -> tuple[str, str]:
    """How a VM came up: ``warm``, ``cloned`` or ``cold``, and why not better than that."""
    try:
        word, _, reason = (folder / "boot").read_text(errors="replace").strip().partition(" ")
    except OSError:
        return "cold", ""
    return (word, reason) if word in ("warm", "cloned", "cold") else ("cold", "")


def read_spent(folder: Path) -> int:
    """Nanoseconds of CPU time that its VMM had used before it became the instance's."""
    try:
        return int((folder / "spent").read_text()) * 1_000_000
    except (OSError, ValueError):
        return 0


def read_pids(folder: Path) -> tuple[int, int] | None:
    """Process ids of relay and VMM, once the service runs."""
    try:
        relay, vmm = (folder / "pid").read_text().split()
        return int(relay), int(vmm)
    except (OSError, ValueError):
        return None
