"""The dashboard's process: started on demand, ended with the engine (facade.Dashboard)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys

import msgspec

from gemel.engine.core import Core, log
from gemel.engine.facade import Json
from gemel.errors import Conflict, Failed, InvalidInput
from gemel.host import files, run

#: Seconds that the process has to start, to take a code, and to end.
START, TAKE, END = 30.0, 5.0, 5.0


class _Said(msgspec.Struct):
    port: int = 0
    error: str = ""
    taken: bool = False


class Dashboard:
    """One process at most; nobody may come in without a code that the engine made."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    def state(self) -> Json:
        """Whether it runs, and where."""
        return {"Running": self.running, "Port": self._port if self.running else 0}

    async def start(self, port: int = 0) -> Json:
        """Makes sure that it runs; gives an address that lets one browser in, once.

        port: 0 for one that is free. Raises Conflict if it runs on another one, InvalidInput,
        Failed.
        """
        if not 0 <= port < 65536:
            raise InvalidInput(f"{port} is no port")
        async with self._lock:
            if self.running and port not in (0, self._port):
                raise Conflict(
                    f"the dashboard runs on port {self._port} already",
                    resolution="`gemel dashboard --stop` ends it",
                )
            begun = not self.running
            if begun:
                await self._launch(port)
            code = secrets.token_urlsafe(24)
            await self._say(f"code {code}\n")
            url = f"http://127.0.0.1:{self._port}/login/{code}"
            return {"Url": url, "Port": self._port, "Started": begun}

    async def _launch(self, port: int) -> None:
        folder = self.core.paths.run / "dashboard"
        files.folder(folder)
        argv = [sys.executable, "-m", "gemel.web", "--run-dir", str(self.core.paths.run)]
        output = os.open(
            folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        try:
            self._process = await run.spawn(
                [*argv, "--port", str(port)],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                env=os.environ,
                new_session=True,
            )
        finally:
            os.close(output)
        said = await self._hear(START)
        if said.error or not said.port:
            await self._end()
            raise Failed(
                "the dashboard cannot be started",
                details=said.error or self._log_tail(),
                resolution="another --port may be free" if "ddress" in said.error else "",
            )
        self._port = said.port

    async def _say(self, order: str) -> None:
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            async with asyncio.timeout(TAKE):
                process.stdin.write(order.encode())
                await process.stdin.drain()
            said = await self._hear(TAKE)
        except (OSError, TimeoutError):
            said = _Said()
        if not said.taken:
            await self._end()
            raise Failed("the dashboard does not answer", details=self._log_tail())

    async def _hear(self, seconds: float) -> _Said:
        process = self._process
        assert process is not None and process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                return msgspec.json.decode(await process.stdout.readline(), type=_Said)
        except (OSError, ValueError, TimeoutError, msgspec.MsgspecError):
            return _Said()

    def _log_tail(self) -> str:
        try:
            text = (self.core.paths.run / "dashboard" / "log").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-5:])

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def stop(self) -> bool:
        """Ends it; False if it did not run."""
        async with self._lock:
            was = self.running
            await self._end()
            return was

    async def close(self) -> None:
        """Ends it with the engine. Never raises."""
        try:
            await self.stop()
        except Exception:
            log.exception("ending the dashboard")
