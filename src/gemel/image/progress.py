"""Docker's progress messages, from work that goes on while they are read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Json = dict[str, Any]
Emit = Callable[[Json], None]


async def stream(work: Callable[[Emit], Awaitable[None]]) -> AsyncIterator[Json]:
    """Runs ``work`` and yields what it emits; raises what it raises.

    The work is ended when the iteration is given up.
    """
    queue: asyncio.Queue[Json | None] = asyncio.Queue()

    async def act() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(act())
    try:
        while (message := await queue.get()) is not None:
            yield message
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def layer(digest: str, status: str, current: int = 0, total: int = 0) -> Json:
    """A message of one layer: its short id, and how far it is."""
    detail = {"current": current, "total": total} if total else {}
    message: Json = {"status": status, "progressDetail": detail, "id": digest[7:19]}
    if total:
        message["progress"] = f"{_size(current)}/{_size(total)}"
    return message


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.4g}{unit}"
        number /= 1000
    return ""
