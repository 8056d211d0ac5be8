"""One instance of a comparison, from its creation to its removal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from gemel.engine import probes
from gemel.engine.attaching import log_pieces
from gemel.engine.containers import Containers
from gemel.engine.core import Core
from gemel.engine.facade import LogQuery
from gemel.engine.records import Container
from gemel.errors import Failed, GemelError
from gemel.host.files import disk_use
from gemel.model.docker import CreateRequest
from gemel.model.instance import Usage

#: Seconds between two tries whether it answers, and of one try at most.
_POLL, _TRY = 0.005, 2.0
_LOG = 2000
_WRONG = 3.0
"""Seconds of one 4xx after the other until it is taken for what it is: the wrong path."""


@contextlib.asynccontextmanager
async def running(
    core: Core, containers: Containers, request: CreateRequest, name: str
) -> AsyncIterator[tuple[Container, float]]:
    """It, started, and the time (monotonic) at which its creation began. Removed at the end."""
    began = time.monotonic()
    made = await containers.create(request, name)
    one = core.container(made["Id"])
    try:
        await containers.start(one.id)
        yield one, began
    finally:
        # whatever happens: nothing of a comparison stays
        await asyncio.shield(_remove(containers, one))


async def _remove(containers: Containers, one: Container) -> None:
    with contextlib.suppress(GemelError):
        await containers.remove(one.id, force=True, volumes=True)


async def answers(core: Core, one: Container, port: int, path: str, seconds: float) -> None:
    """Waits for the first healthy answer. Raises Failed with what was seen last, and its log."""
    seen = "nothing"
    test = ["HTTP", str(port), path]
    wrong_since = 0.0
    try:
        async with asyncio.timeout(seconds):
            while one.state.running:
                address = core.address(one)
                try:
                    async with asyncio.timeout(_TRY):
                        status, seen = await probes.run(test, address)
                except TimeoutError:
                    status, seen = 1, f"no answer in {_TRY:g} s"
                if status == 0:
                    return
                seen = seen.partition("\n")[0][:200]
                if not seen.startswith("HTTP status 4"):
                    wrong_since = 0.0
                elif not wrong_since:
                    wrong_since = time.monotonic()
                elif time.monotonic() - wrong_since > _WRONG:
                    break
                await asyncio.sleep(_POLL)
    except TimeoutError:
        pass
    what = "gave no healthy answer" if one.state.running else "has ended"
    raise Failed(
        f"it {what} (last seen: {seen})",
        details=(await output(core, one))[-_LOG:].decode("utf-8", "replace").strip(),
        resolution="--port and --path say where it answers, --start-timeout how long it may take",
    )


async def output(core: Core, one: Container) -> bytes:
    """The end of what it has written so far."""
    pieces = []
    found = log_pieces(core, one, LogQuery(tail=50))
    async with contextlib.aclosing(found):
        async for _, piece in found:
            pieces.append(piece)
    return b"".join(pieces)


async def usage(core: Core, one: Container) -> Usage:
    """What it takes now."""
    return await core.runtime(one).usage(one.id)


def cpu(used: Usage) -> int:
    """CPU nanoseconds of the host."""
    return used.true_cpu_ns or used.cpu_ns


async def layer(core: Core, one: Container) -> int:
    """Bytes of its writable layer."""
    return await asyncio.to_thread(disk_use, str(core.paths.layer(one.id)))
