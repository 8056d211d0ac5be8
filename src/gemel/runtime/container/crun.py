"""Calling crun, and understanding what it says when it refuses."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from gemel.errors import (
    CommandNotFound,
    CommandNotRunnable,
    Failed,
    GemelError,
    NotFound,
    Unsupported,
)
from gemel.host import run

PROGRAM = "crun"


class Filters:
    """Compiled system-call filters, by what they were compiled from.

    Compiling takes crun 15 ms, a third of a start. It leaves what it compiled beside its
    state, and takes it back in an annotation; a crun that does not know the annotation
    compiles as ever, since the profile stays in the configuration.
    """

    ANNOTATION = "run.oci.seccomp_bpf_data"
    _MOST = 32

    def __init__(self) -> None:
        self._compiled: dict[bytes, str] = {}

    def apply(self, config: dict[str, Any]) -> bytes | None:
        """Puts a known filter into a configuration; else what ``learn`` is to be told."""
        profile = config["linux"].get("seccomp")
        if profile is None:
            return None
        key = hashlib.sha256(msgspec.json.encode(profile)).digest()
        if (known := self._compiled.get(key)) is None:
            return key
        config["annotations"][self.ANNOTATION] = known
        return None

    def learn(self, key: bytes, state: Path) -> None:
        """Keeps the filter of the container whose state crun has in ``state``."""
        with contextlib.suppress(OSError):
            data = (state / "seccomp.bpf").read_bytes()
            if data and len(self._compiled) < self._MOST:
                self._compiled[key] = base64.b64encode(data).decode()


class Crun:
    """crun with a state folder of its own, so that engines do not see each other's."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def arguments(self, log: Path | None = None) -> list[str]:
        """Options that stand before the command."""
        found = ["--root", str(self.state)]
        if log is not None:
            # as text: what crun says inside, just before the program, goes to its output
            found.append(f"--log=file:{log}")
        return found

    def known(self, id: str) -> bool:
        """Whether crun has a container of that id, running or not."""
        return (self.state / id).is_dir()

    def waits(self, id: str) -> bool:
        """Whether it was created and not yet started."""
        return (self.state / id / "exec.fifo").exists()

    async def call(self, *arguments: str, check: bool = True, timeout: float = 60) -> run.Result:
        """Runs one of its commands. Raises NotFound, Failed."""
        result = await run.run(
            [PROGRAM, *self.arguments(), *arguments], check=False, timeout=timeout
        )
        if check and result.status != 0:
            raise refusal(result.error_text, "")
        return result

    async def start(self, id: str) -> None:
        """Lets a created container run. Raises Failed.

        What ``crun start`` does without hooks and notify socket (and ours have none):
        it opens exec.fifo, removes it, writes a byte. Doing so saves a process for each
        start; crun itself is asked if its state does not look like that.
        """
        fifo = self.state / id / "exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            await self.call("start", id)
            return
        try:
            fifo.unlink()
            os.write(fd, b"\0")
        except OSError as error:
            raise Failed("cannot start the container", details=str(error)) from error
        finally:
            os.close(fd)

    async def delete(self, id: str) -> None:
        """Kills what is left of a container and forgets it. Idempotent."""
        if self.known(id):
            result = await self.call("delete", "--force", id, check=False)
            if result.status != 0 and self.known(id):
                raise Failed(f"cannot remove container {id[:12]}", details=result.error_text)


def logged(log: Path) -> str:
    """The last errors that crun wrote to its log."""
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return ""


# what crun says of a command that cannot be run: Debian 12's first, then Debian 13's
_NOT_RUNNABLE = ("open executable", "exists but it is not executable", "is not a regular file")


def refusal(message: str, program: str) -> GemelError:
    """crun's words made into an error, with Docker's words where clients look for them.

    program: what was to be executed (``argv[0]``).
    """
    begun = "unable to start container process: exec"
    if "executable file" in message and "not found" in message:
        if "/" in program:
            return CommandNotFound(
                f'{begun}: "{program}": stat {program}: no such file or directory',
                resolution="the program is not in the image",
            )
        return CommandNotFound(
            f'{begun}: "{program}": executable file not found in $PATH',
            resolution="the program is not in the image, or not in a folder of PATH",
        )
    if any(mark in message for mark in (*_NOT_RUNNABLE, f"cannot open `{program}`")):
        return CommandNotRunnable(
            f'{begun}: "{program}": permission denied',
            details=message,
            resolution="the file is a folder, or lacks the permission to execute (chmod +x)",
        )
    if message.startswith("chdir"):
        missing = "No such file" in message
        kind = CommandNotFound if missing else CommandNotRunnable
        return kind(
            "unable to start container process: chdir to cwd failed: "
            + ("no such file or directory" if missing else "not possible"),
            details=message,
            resolution="name a working directory that is in the container",
        )
    if "setrlimit" in message:
        return Unsupported(
            "error setting rlimits: operation not permitted",
            details=message,
            resolution="the engine has no CAP_SYS_RESOURCE: ask for ulimits below its own",
        )
    if "oom_score_adj" in message:
        return Unsupported(
            "error setting oom_score_adj: permission denied",
            details=message,
            resolution="the engine has no CAP_SYS_RESOURCE: ask for no lower value than its own",
        )
    if "does not exist" in message and "container" in message:
        return NotFound("no such container", details=message)
    return Failed("unable to start container process", details=message.strip())
