"""The engine's side of the DNS server: starts it, tells it the names, takes it up again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

import msgspec

from gemel.errors import Failed, GemelError
from gemel.host import files, helper, run
from gemel.model.network import Balanced, Endpoint, NetworkInfo
from gemel.net.dns.protocol import CONTROL_LIMIT, VERSION, Done, Hello, Order, Snapshot

log = logging.getLogger("gemel.net")

#: Seconds that the server has to start, to take new names (it may wait for its turn on a busy
#: machine), and to end.
START, TAKE, END = 20.0, 5.0, 2.0


class Resolver:
    """The DNS server of one engine, and the connection to it.

    The server goes on when the engine dies; the next engine finds it by its
    socket. If it dies while the engine runs, it is started again.
    """

    def __init__(self, run_dir: Path, resolv_conf: Path) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "dns"
        self._resolv_conf = resolv_conf
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._pidfd = -1
        self._snapshot: Snapshot | None = None
        self._revival: asyncio.Task[None] | None = None
        self._deaths = 0
        self.held = Done(0)
        """What the server said last."""

    async def push(
        self,
        networks: tuple[NetworkInfo, ...],
        endpoints: tuple[Endpoint, ...],
        balanced: tuple[Balanced, ...] = (),
    ) -> Done:
        """Tells the server all names; starts it if it is not there. Returns once they hold.

        Of several calls that wait, the last one's names are sent. Raises Failed.
        """
        generation = self._snapshot.generation + 1 if self._snapshot else 1
        self._snapshot = Snapshot(generation, networks, endpoints, balanced)
        async with self._lock:
            if self.held.generation >= generation and self._streams is not None:
                return self.held
            for _ in range(3):
                try:
                    return await self._exchange(self._snapshot)
                except (OSError, EOFError, TimeoutError, msgspec.MsgspecError) as error:
                    log.warning("the DNS server does not take names: %r", error)
                    self._disconnect()
                    await asyncio.to_thread(self._kill)
            raise Failed("the DNS server does not take names", details=self._log_tail())

    async def _exchange(self, snapshot: Snapshot) -> Done:
        if self._streams is None:
            await self._connect()
        assert self._streams is not None
        reader, writer = self._streams
        async with asyncio.timeout(TAKE):
            writer.write(msgspec.json.encode(Order(snapshot=snapshot)) + b"\n")
            await writer.drain()
            done = msgspec.json.decode(await _line(reader), type=Done)
        for gateway, reason in done.failures.items():
            log.error("the DNS server cannot listen on %s: %s", gateway, reason)
        self.held = done
        return done

    async def _connect(self) -> None:
        """Connects to a server of this version that runs, or to a new one."""
        for attempt in range(3):
            try:
                async with asyncio.timeout(TAKE):
                    reader, writer = await self._open()
                    hello = msgspec.json.decode(await _line(reader), type=Hello)
                if hello.version != VERSION:
                    writer.close()
                    raise ConnectionError(f"the DNS server is of version {hello.version}")
                self._watch(hello.pid)
                self._streams = reader, writer
                return
            except (OSError, EOFError, TimeoutError, msgspec.MsgspecError) as error:
                if attempt == 2:
                    raise
                log.info("starting a DNS server: %s", error)
                await asyncio.to_thread(self._kill)
                await self._start()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        one = await asyncio.to_thread(helper.connect, self._folder)
        one.setblocking(False)
        return await asyncio.open_unix_connection(sock=one, limit=CONTROL_LIMIT)

    async def _start(self) -> None:
        files.folder(self._folder)
        argv = [sys.executable, "-m", "gemel.net.dns", "--run-dir", str(self._run_dir)]
        argv += ["--resolv-conf", str(self._resolv_conf)]
        await run.run(argv, timeout=START, env=os.environ, new_session=True)

    def _watch(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._died)

    def _died(self) -> None:
        self._disconnect()
        self._deaths += 1
        if self._revival is None or self._revival.done():
            self._revival = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        """Starts the server anew, later each time it dies (at most half a minute)."""
        while self._streams is None and self._snapshot is not None:
            await asyncio.sleep(min(0.02 * 2 ** min(self._deaths, 16), 30.0))
            if self._streams is not None or self._snapshot is None:
                return
            log.warning("the DNS server has died; starting it again")
            try:
                last = self._snapshot
                await self.push(last.networks, last.endpoints, last.balanced)
            except GemelError as error:
                self._deaths += 1
                log.error("%s", error)

    def _disconnect(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def _kill(self) -> None:
        """Ends a server that does not answer, if its pid file names one that lives."""
        helper.kill(self._folder)

    def _log_tail(self) -> str:
        return helper.log_tail(self._folder, 10)

    async def detach(self) -> None:
        """Lets go of the server, which goes on."""
        self._snapshot = None
        if self._revival is not None:
            self._revival.cancel()
            await asyncio.gather(self._revival, return_exceptions=True)
        async with self._lock:
            self._disconnect()
            self.held = Done(0)

    async def stop(self) -> None:
        """Ends the server. Idempotent; a server that another engine left is ended too."""
        await self.detach()
        async with self._lock:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(END):
                    reader, writer = await self._open()
                    writer.write(msgspec.json.encode(Order(stop=True)) + b"\n")
                    await reader.read()  # its greeting, then the end
                    writer.close()
            await asyncio.to_thread(self._kill)
            for name in ("control.sock", "pid"):
                (self._folder / name).unlink(missing_ok=True)


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the DNS server has closed the connection")
    return line
