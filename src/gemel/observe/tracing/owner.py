"""The engine's side of the process that joins traces: listens for it, starts it, asks it.

The engine holds the listening socket; the process is started by the first connection to it, or
by the first question. So it costs nothing in a project that knows no OpenTelemetry.
"""

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
from gemel.observe.capture.records import LIMIT, Done, Peer
from gemel.observe.tracing.records import Ask, Order

log = logging.getLogger("gemel.traces")

#: Seconds that the process has to start, to take an order; between two attempts, at first and most.
START, TAKE = 20.0, 5.0
AGAIN, LONGEST = 0.5, 60.0
#: Seconds between two looks at whether the network has changed.
SETTLE = 0.05


class Traces:
    """See the module. peers: who has which address. One task owns the process."""

    def __init__(self, run_dir: Path, peers: Callable[[], dict[str, Peer]]) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "traces"
        self._peers = peers
        self._otlp: socket.socket | None = None
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._holds = asyncio.Event()
        self._failed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.problem = ""

    def listen(self) -> int:
        """Begins to listen for OTLP on a port of the loopback address, and gives it back."""
        self._otlp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._otlp.setblocking(False)
        self._otlp.bind(("127.0.0.1", 0))
        self._otlp.listen(128)
        self._task = asyncio.create_task(self._keep(), name="traces")
        port: int = self._otlp.getsockname()[1]
        return port

    @property
    def on(self) -> bool:
        """Whether the process runs."""
        return self._holds.is_set()

    def notice(self) -> None:
        """The network has changed. Costs nothing, never waits."""
        self._changed.set()

    async def start(self) -> None:
        """Makes sure that the process runs. Raises Failed."""
        if self.on:
            return
        self._failed.clear()
        self._wanted.set()
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._holds, self._failed)]
        try:
            await asyncio.wait(waiting, timeout=START + TAKE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        if not self.on:
            raise Failed(
                "traces cannot be shown",
                details=self.problem or "the process that joins them does not start",
                resolution="services are not concerned; the file traces/log in the run folder "
                "says more",
            )

    async def close(self) -> None:
        """Ends the process, and to listen. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._otlp is not None:
            self._otlp.close()
            self._otlp = None
        self._holds.clear()
        await asyncio.to_thread(helper.kill, self._folder)
        helper.forget(self._folder)

    # --- the process ------------------------------------------------------------------

    async def _keep(self) -> None:
        """Starts the process when it is wanted, tells it of every change, until it ends."""
        pause = AGAIN
        while True:
            await self._until_wanted()
            writer: asyncio.StreamWriter | None = None
            try:
                await asyncio.to_thread(helper.kill, self._folder)  # that of an engine before
                await self._launch()
                one = await asyncio.to_thread(helper.connect, self._folder)
                one.setblocking(False)
                reader, writer = await asyncio.open_unix_connection(sock=one, limit=LIMIT)
                while True:
                    await self._tell(reader, writer)
                    self._holds.set()
                    pause = AGAIN
                    await helper.until_change(self._changed, reader, SETTLE)
            except (OSError, EOFError, TimeoutError, GemelError, msgspec.MsgspecError) as error:
                tail = await asyncio.to_thread(helper.log_tail, self._folder)
                self.problem = f"{error}\n{tail}".strip()
                log.warning("the process that joins traces: %s", error)
            finally:
                self._holds.clear()
                self._wanted.clear()
                if writer is not None:
                    writer.close()
            self._failed.set()
            await asyncio.sleep(pause)
            pause = min(pause * 4, LONGEST)

    async def _until_wanted(self) -> None:
        """Until somebody connects or asks."""
        loop = asyncio.get_running_loop()
        if self._otlp is None:
            await self._wanted.wait()
            return
        loop.add_reader(self._otlp, self._wanted.set)
        try:
            await self._wanted.wait()
        finally:
            loop.remove_reader(self._otlp)

    async def _launch(self) -> None:
        files.folder(self._folder)
        argv = [sys.executable, "-m", "gemel.observe.tracing", "--run-dir", str(self._run_dir)]
        fds = [self._otlp.fileno()] if self._otlp is not None else []
        argv += ["--otlp", *map(str, fds)]
        await run.run(argv, timeout=START, env=os.environ, new_session=True, pass_fds=fds)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._changed.clear()
        async with asyncio.timeout(TAKE):
            writer.write(msgspec.json.encode(Order(peers=self._peers())) + b"\n")
            await writer.drain()
            line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it has ended")
        msgspec.json.decode(line, type=Done)

    # --- questions --------------------------------------------------------------------

    async def lines(self, ask: Ask, feed: socket.socket | None) -> AsyncIterator[bytes]:
        """JSON lines that answer. feed: a connection to the capture, given away. Raises Failed."""
        try:
            one = await asyncio.to_thread(self._ask, ask, feed)
            reader, writer = await asyncio.open_unix_connection(sock=one, limit=LIMIT)
        except (OSError, TimeoutError) as error:
            raise Failed("the traces cannot be read", details=str(error)) from error
        try:
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    yield line
        finally:
            writer.close()

    def _ask(self, ask: Ask, feed: socket.socket | None) -> socket.socket:
        try:
            one = helper.connect(self._folder)
            try:
                line = msgspec.json.encode(Order(ask=ask)) + b"\n"
                socket.send_fds(one, [line], [feed.fileno()] if feed is not None else [])
                one.setblocking(False)
                return one
            except BaseException:
                one.close()
                raise
        finally:
            if feed is not None:
                feed.close()
