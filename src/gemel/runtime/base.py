"""What a runtime must offer. tests/conformance runs one suite against every one of them.

An instance outlives the engine: after a kill -9 of the engine a new one calls
``adopt`` with the ids it finds in its state, and goes on as if nothing had been.
So whatever a runtime must know of a running instance lies in the instance's
run folder (``RUN_DIR/instances/ID``), never in memory alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

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


class Stream(Protocol):
    """A two-way connection to a program's standard streams (attach, exec).

    With a terminal everything comes as stream 1. Reading is pulled by the
    caller: one that does not read slows the sender of its own session only.
    """

    async def read(self) -> tuple[int, bytes] | None:
        """The next bytes: (1, stdout) or (2, stderr); None at the end of both."""
        ...

    async def write(self, data: bytes) -> None:
        """Writes to standard input; waits while its buffer is full. Raises Failed when closed."""
        ...

    async def close_stdin(self) -> None:
        """Ends standard input; output goes on."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size; does nothing without a terminal."""
        ...

    async def close(self) -> None:
        """Lets go of the connection. Never raises, may be called twice."""
        ...


class ExecSession(Stream, Protocol):
    """A program started by ``Runtime.exec``: its streams and its end."""

    @property
    def pid(self) -> int:
        """Process id as the host (container) or the guest (micro VM) sees it."""
        ...

    async def wait(self) -> int:
        """Exit status, as a shell has it."""
        ...

    async def kill(self, signal: int) -> None:
        """Sends a signal to the program; fine if it has ended."""
        ...


class Runtime(Protocol):
    """One way to run instances. All methods may be called at the same time for different ids."""

    name: RuntimeName
    capabilities: Capabilities

    async def prepare(self) -> None:
        """Once, when the engine starts: checks tools, makes folders. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """When the engine stops: lets go of watchers and connections, not of instances."""
        ...

    async def create(self, spec: InstanceSpec) -> None:
        """Makes the writable layer (``spec.layer``). Idempotent. Nothing runs yet."""
        ...

    async def start(self, spec: InstanceSpec) -> int:
        """Starts the instance's process and gives back a pid of the host.

        For a container that of its first process, for a micro VM its VMM's.
        Output is captured to ``spec.log`` from the first byte. Raises
        CommandNotFound, CommandNotRunnable, Failed, Unavailable; whatever had
        been made by then is gone when it raises, but the writable layer.
        """
        ...

    async def adopt(self, spec: InstanceSpec) -> bool:
        """Takes up an instance that an earlier engine started. False: it runs no more.

        In that case ``wait`` still gives its exit if it ended meanwhile.
        """
        ...

    async def wait(self, id: str) -> Exit:
        """Waits for the end of a started (or adopted) instance. Any number may wait at once."""
        ...

    async def cleanup(self, id: str) -> None:
        """After the end: removes mounts, cgroups, sockets, run folder. Idempotent.

        The writable layer and the log stay, so it can be started again.
        """
        ...

    async def remove(self, spec: InstanceSpec) -> None:
        """Removes the writable layer of an instance that does not run. Idempotent."""
        ...

    def healthy(self, id: str) -> None:
        """Its health check has just succeeded. Returns at once, and may be called often."""
        ...

    def boot(self, id: str) -> tuple[str, str]:
        """How a running instance's machine came up (``warm``, ``cloned``, ``cold``), and why not
        better; empty where nothing boots."""
        ...

    async def kill(self, id: str, signal: int) -> None:
        """Sends a signal to the first process. SIGKILL ends the instance whole."""
        ...

    async def pause(self, id: str) -> None:
        """Freezes all processes. Raises Unsupported where it cannot."""
        ...

    async def resume(self, id: str) -> None:
        """Ends a pause."""
        ...

    async def attach(self, id: str) -> Stream:
        """Connects to the first process's streams, from now on (what was is in the log).

        Before ``start`` too: it is connected before the program's first instruction,
        so nothing is missed; if the start fails its ``read`` gives None. Closing it
        leaves the program's standard input open, unless ``close_stdin`` was called.
        """
        ...

    async def exec(self, id: str, process: Process) -> ExecSession:
        """Starts a further program. Raises CommandNotFound, CommandNotRunnable, Conflict."""
        ...

    async def debug(
        self, spec: InstanceSpec, toolbox: Toolbox, process: Process, running: bool
    ) -> ExecSession:
        """Starts a program of a toolbox as root beside an instance.

        It has a root of its own (the toolbox, changes kept in memory), the instance's
        processes, network, IPC and host name, and the instance's root at /service. Nothing
        of it counts for the instance's limits. Of an instance that does not run there are
        its files and mounts only. Raises CommandNotFound, CommandNotRunnable, Conflict,
        Failed, Unavailable.
        """
        ...

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Sets the size of the first process's terminal."""
        ...

    async def usage(self, id: str) -> Usage:
        """What it uses now."""
        ...

    async def processes(self, id: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """Titles and rows as ``ps`` has them (docker top); ps_args is ``-ef`` by default."""
        ...

    async def update(self, id: str, resources: Resources) -> None:
        """Changes limits while it runs. Raises Unsupported."""
        ...

    def read_archive(self, spec: InstanceSpec, path: str, running: bool) -> AsyncIterator[bytes]:
        """A tar of ``path`` as ``docker cp`` takes it out: one top entry, its base name."""
        ...

    async def write_archive(
        self,
        spec: InstanceSpec,
        path: str,
        tar: AsyncIterator[bytes],
        running: bool,
        *,
        keep: bool = True,
    ) -> None:
        """Unpacks a tar into folder ``path``. Never leaves the instance's own root.

        keep: a folder is not replaced by a file, nor the other way round (a micro VM always
        keeps them).
        """
        ...

    def read_root(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        """A tar of its whole root, what is mounted in it left empty (docker export)."""
        ...

    def read_changes(self, spec: InstanceSpec, running: bool) -> AsyncIterator[bytes]:
        """What it changed in its image's root, as a layer of an image (``.wh.`` for what is
        gone); ``spec.rootfs`` is the image's root. What is mounted in it is left out."""
        ...

    async def stat_path(self, spec: InstanceSpec, path: str, running: bool) -> PathStat:
        """What lies at ``path``. Raises NotFound."""
        ...


class PathStat(Protocol):
    """A file's facts as Docker's X-Docker-Container-Path-Stat header tells them."""

    name: str
    size: int
    mode: int
    """st_mode of stat(2)."""
    mtime: float
    link_target: str
