"""A process of the engine's own that is told something and answers: a line each way.

It is a child that ends with its standard input, so it never outlives the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from gemel.errors import Failed
from gemel.host import run

#: Seconds for it to start and to answer.
TAKE = 20.0


class Child:
    """``python -m MODULE``, started when it is told something first. Calls must not overlap."""

    def __init__(self, module: str, what: str, *arguments: str) -> None:
        """what: it, in an error: "the process that delays connections"."""
        self._argv = [sys.executable, "-m", module, *arguments]
        self._what = what
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    async def tell(self, line: bytes) -> bytes:
        """Hands it a line, gives back its answer; starts it anew once if it is gone.

        Raises Failed, Unavailable.
        """
        for attempt in (0, 1):
            if not self.pid:
                await self._start()
            try:
                return await self._exchange(line)
            except (OSError, EOFError, TimeoutError) as error:
                await self.close()
                if attempt:
                    raise Failed(f"{self._what} does not answer", details=repr(error)) from error
        raise AssertionError

    async def _start(self) -> None:
        self._process = await run.spawn(
            self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ,
        )

    async def _exchange(self, line: bytes) -> bytes:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        async with asyncio.timeout(TAKE):
            process.stdin.write(line + b"\n")
            await process.stdin.drain()
            answer = await process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise EOFError("it has ended")
        return answer

    async def close(self) -> None:
        """Ends it at once. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
