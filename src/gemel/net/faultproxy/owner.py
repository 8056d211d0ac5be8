"""The engine's side of the proxy: starts it when the first such fault begins, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

import msgspec

from gemel.errors import Failed
from gemel.host import run
from gemel.net.faultproxy.protocol import Edge, Edges, Ready

#: Seconds for the process to start and to take faults.
TAKE = 20.0


class Proxy:
    """See the module. Calls must not overlap."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else 0

    async def tell(self, edges: Sequence[Edge]) -> Ready:
        """Hands it the faults; gives back its ports. Raises Failed, Unavailable."""
        for attempt in (0, 1):
            if not self.pid:
                await self._start()
            try:
                return await self._exchange(Edges(tuple(edges)))
            except (OSError, EOFError, TimeoutError, msgspec.MsgspecError) as error:
                await self.close()
                if attempt:
                    raise Failed(
                        "the process that delays connections does not answer", details=repr(error)
                    ) from error
        raise AssertionError

    async def _start(self) -> None:
        self._process = await run.spawn(
            [sys.executable, "-m", "gemel.net.faultproxy"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ,
        )

    async def _exchange(self, edges: Edges) -> Ready:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        async with asyncio.timeout(TAKE):
            process.stdin.write(msgspec.json.encode(edges) + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        if not line:
            raise EOFError("it has ended")
        return msgspec.json.decode(line, type=Ready)

    async def close(self) -> None:
        """Ends it and the connections that go through it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
