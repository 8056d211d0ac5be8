"""The engine's side of the capturing process: starts it, tells it whom to look at, asks it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from gemel.errors import Failed, GemelError
from gemel.host import files, helper, run
from gemel.observe.capture.records import LIMIT, Done, Order, Query, Snapshot, Sums

log = logging.getLogger("gemel.traffic")

#: Seconds that the process has to start, to take a snapshot; starts in a row that may fail.
START, TAKE = 20.0, 5.0
ATTEMPTS = 5
#: Seconds between two looks at whether the network has changed.
SETTLE = 0.01
#: Seconds that an instance's start waits for the process to know of it.
AWAIT = 1.0

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Traffic:
    """See the module. It never raises into the engine's other work.

    look: gives what is to be captured at the moment. One task owns the process:
    it starts it, tells it of changes, and starts it again if it dies.
    """

    def __init__(self, run_dir: Path, look: Callable[[], Snapshot]) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "traffic"
        self._look = look
        self._changed = asyncio.Event()
        self._holds = asyncio.Event()
        self._noticed = self._told = 0
        self._telling: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why it does not run."""
        self.pid = 0

    @property
    def on(self) -> bool:
        """Whether it is wanted (started by the first who looked)."""
        return self._task is not None and not self._task.done()

    def notice(self) -> None:
        """The network has changed. Costs nothing, never waits."""
        self._noticed += 1
        self._changed.set()

    async def caught_up(self) -> None:
        """Waits until the process knows of all that was noticed, AWAIT seconds at most.

        An instance that starts after this is seen from its first packet on. Never raises.
        """
        wanted = self._noticed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AWAIT):
                while self._holds.is_set() and self._told < wanted:
                    if self._telling is None:
                        self._telling = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._telling)

    def _tell_waiting(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.set_result(None)

    async def start(self) -> bool:
        """Makes sure that it captures. False: it did already. Raises Failed."""
        if self.on and self._holds.is_set():
            return False
        if not self.on:
            self.problem = ""
            self._holds.clear()
            self._task = asyncio.create_task(self._keep(), name="traffic")
        assert self._task is not None
        holds = asyncio.create_task(self._holds.wait())
        try:
            await asyncio.wait(
                {holds, self._task}, timeout=START + TAKE, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            holds.cancel()
        if not self._holds.is_set():
            raise Failed(
                "the traffic is not recorded",
                details=self.problem or "the capturing process does not start",
                resolution="services are not concerned; the file traffic/log in the run folder "
                "says more",
            )
        return True

    async def stop(self) -> None:
        """Ends the process. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._holds.clear()
        await asyncio.to_thread(helper.kill, self._folder)
        helper.forget(self._folder)

    async def _keep(self) -> None:
        """Starts the process, again if it dies, and tells it of every change."""
        attempts = 0
        while attempts < ATTEMPTS:
            writer: asyncio.StreamWriter | None = None
            try:
                await asyncio.to_thread(helper.kill, self._folder)  # one that an engine before left
                await self._launch()
                reader, writer = await self._open()
                while True:
                    await self._tell(reader, writer)
                    self._holds.set()
                    attempts = 0
                    await helper.until_change(self._changed, reader, SETTLE)
            except (OSError, EOFError, TimeoutError, GemelError, msgspec.MsgspecError) as error:
                self.problem = (
                    f"{error}\n{await asyncio.to_thread(helper.log_tail, self._folder)}".strip()
                )
                log.warning("the capturing process: %s", error)
            finally:
                self._holds.clear()
                self._tell_waiting()
                if writer is not None:
                    writer.close()
            attempts += 1
            await asyncio.sleep(min(0.1 * 4**attempts, 10.0))

    async def _launch(self) -> None:
        files.folder(self._folder)
        argv = [sys.executable, "-m", "gemel.observe.capture", "--run-dir", str(self._run_dir)]
        await run.run(argv, timeout=START, env=os.environ, new_session=True)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._changed.clear()
        noticed = self._noticed
        async with asyncio.timeout(TAKE):
            writer.write(msgspec.json.encode(Order(snapshot=self._look())) + b"\n")
            await writer.drain()
            done = msgspec.json.decode(await _line(reader), type=Done)
        self.pid = done.pid
        if done.error:
            raise Failed(done.error)
        self._told = noticed
        self._tell_waiting()

    async def _open(self) -> _Streams:
        one = await asyncio.to_thread(helper.connect, self._folder)
        one.setblocking(False)
        return await asyncio.open_unix_connection(sock=one, limit=LIMIT)

    def feed(self) -> socket.socket | None:
        """A connection to the capturing process, to give away; None while it does not run."""
        try:
            return helper.connect(self._folder) if self._holds.is_set() else None
        except OSError as error:
            log.warning("the capturing process: %s", error)
            return None

    # --- questions --------------------------------------------------------------------

    async def lines(self, query: Query) -> AsyncIterator[bytes]:
        """JSON lines that answer a query, one by one, as they come. Raises Failed."""
        if not self._holds.is_set():
            return
        try:
            reader, writer = await self._open()
        except (OSError, TimeoutError) as error:
            raise Failed("the recorded traffic cannot be read", details=str(error)) from error
        try:
            writer.write(msgspec.json.encode(Order(query=query)) + b"\n")
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    yield line
        finally:
            writer.close()

    async def sums(self) -> Sums | None:
        """Everything counted; None while it does not run."""
        if not self._holds.is_set():
            return None
        try:
            async with asyncio.timeout(TAKE):
                async for line in self.lines(Query(metrics=True)):
                    return msgspec.json.decode(line, type=Sums)
        except (GemelError, OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.warning("the sums of the traffic: %r", error)
        return None


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("it has ended")
    return line
