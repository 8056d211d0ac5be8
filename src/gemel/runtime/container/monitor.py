"""One conmon for each container: it holds the output, the input and the exit status.

So the engine can die and come back. conmon tells that it is done by ending, after it
has written the last output to the log and the status to the exit file: waiting for an
instance is waiting for the end of its conmon (pidfd), without a race to lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import msgspec

from gemel.errors import Failed
from gemel.host import files, pipes, run
from gemel.host.procs import Handle, start_time
from gemel.model.instance import InstanceSpec
from gemel.runtime.container.crun import Crun, logged, refusal

PROGRAM = "conmon"

#: Seconds that crun's create may take (a slow disk, a busy machine).
CREATE_TIMEOUT = 60.0

#: Seconds that a killed conmon may take to be gone.
ABORT_TIMEOUT = 5.0

#: conmon makes its terminal socket in TMPDIR; the path of a socket has at most 107 bytes.
_SOCKET_NAME = len("/conmon-term.XXXXXX")


class Files(msgspec.Struct, frozen=True):
    """Where things lie in the run folder of an instance (which is its OCI bundle)."""

    run: Path
    id: str

    @property
    def rootfs(self) -> Path:
        return self.run / "rootfs"

    @property
    def shm(self) -> Path:
        """The tmpfs that is seen at /dev/shm."""
        return self.run / "shm"

    @property
    def config(self) -> Path:
        return self.run / "config.json"

    @property
    def record(self) -> Path:
        """Pids of conmon and of the first process, with their start times."""
        return self.run / "monitor.json"

    @property
    def pid(self) -> Path:
        return self.run / "pid"

    @property
    def conmon_pid(self) -> Path:
        return self.run / "conmon.pid"

    @property
    def exit(self) -> Path:
        """The exit status, written by conmon in one step."""
        return self.run / "exit" / self.id

    @property
    def crun_log(self) -> Path:
        return self.run / "crun.log"

    @property
    def control(self) -> Path:
        """conmon's fifo for the size of the terminal."""
        return self.run / "ctl"


class Record(msgspec.Struct, frozen=True):
    """What must be known of a running instance to take it up again."""

    pid: int
    started: int
    conmon: int
    conmon_started: int
    tty: bool
    stdin: bool


def argv(spec: InstanceSpec, paths: Files, crun: Crun, program: str) -> list[str]:
    """conmon's command line (pure). program: crun's path."""
    command = [PROGRAM, "--api-version", "1", "-c", spec.id, "-u", spec.id, "-n", spec.name]
    command += ["-r", program, "-b", str(paths.run), "--full-attach"]
    command += ["--exit-dir", str(paths.exit.parent), "--persist-dir", str(paths.run / "persist")]
    command += ["-p", str(paths.pid), "-P", str(paths.conmon_pid)]
    command += ["-l", f"k8s-file:{spec.log}", "--no-sync-log"]
    if spec.log_size:
        command += ["--log-size-max", str(spec.log_size)]
    for argument in crun.arguments(paths.crun_log):
        command += ["--runtime-arg", argument]
    if spec.process.tty:
        # a terminal is closed by typing ^D; a client that goes away must not take it along
        command += ["-t", "--leave-stdin-open"]
    if spec.process.stdin:
        command.append("-i")
    return command


async def create(spec: InstanceSpec, paths: Files, crun: Crun) -> Record:
    """Starts conmon, which has crun create the container (not yet started).

    Raises CommandNotFound, CommandNotRunnable, Failed, Unavailable.
    """
    for folder in (paths.exit.parent, paths.run / "persist"):
        files.folder(folder)
    files.folder(spec.log.parent)
    program = run.find("crun") or "/usr/bin/crun"
    read_end, write_end = os.pipe()
    environment = {"PATH": os.environ.get("PATH", "/usr/bin"), "_OCI_SYNCPIPE": str(write_end)}
    if len(str(paths.run)) + _SOCKET_NAME < 107:
        environment["TMPDIR"] = str(paths.run)
    try:
        result = await run.run(
            argv(spec, paths, crun, program),
            env=environment,
            cwd=str(paths.run),
            pass_fds=[write_end],
            check=False,
        )
        if result.status != 0:
            raise Failed("conmon did not start", details=result.error_text)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    try:
        line = await pipes.read_line(read_end, CREATE_TIMEOUT)
    except TimeoutError:
        raise Failed(f"crun took longer than {CREATE_TIMEOUT:g} s to create") from None
    pid = _created(line, paths, spec)
    conmon = int(paths.conmon_pid.read_text())
    record = Record(
        pid,
        start_time(pid),
        conmon,
        start_time(conmon),
        spec.process.tty,
        spec.process.stdin,
    )
    files.write(paths.record, msgspec.json.encode(record))
    return record


def _created(line: bytes, paths: Files, spec: InstanceSpec) -> int:
    """The pid that conmon reports. Raises what crun complained of."""
    try:
        report = json.loads(line)
        pid = int(report["data"])
    except (ValueError, KeyError, TypeError):
        raise Failed("conmon ended before the container was made", logged(paths.crun_log)) from None
    if pid < 0:
        message = logged(paths.crun_log) or str(report.get("message", ""))
        raise refusal(message, spec.process.argv[0] if spec.process.argv else "")
    return pid


def load(paths: Files) -> Record | None:
    """What an earlier engine wrote down; None if it did not come so far."""
    try:
        return msgspec.json.decode(paths.record.read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


async def abort(paths: Files) -> None:
    """Ends a conmon that did not come to the end of ``create``, and crun with it."""
    try:
        left = handle(int(paths.conmon_pid.read_text()), 0)
    except (FileNotFoundError, ValueError):
        return
    if left is None:
        return
    try:
        # the pid may be another's by now, if an earlier engine left the file
        if str(paths.run).encode() in Path(f"/proc/{left.pid}/cmdline").read_bytes():
            left.send(signal.SIGKILL)
            async with asyncio.timeout(ABORT_TIMEOUT):
                await left.ended()
    except (FileNotFoundError, TimeoutError):
        pass
    finally:
        left.close()


def handle(pid: int, started: int) -> Handle | None:
    """The process if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        return Handle(pid, started)
    return None


def exit_status(paths: Files) -> tuple[int, float] | None:
    """Status and time of the end, if conmon has written them."""
    try:
        text = paths.exit.read_text()
        return int(text), paths.exit.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return None
