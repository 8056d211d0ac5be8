"""Guest kernels: fetched or built ahead of the first micro VM, listed, chosen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.model.instance import RuntimeName
from gemel.runtime.microvm import kernel, kernels, ownkernel
from gemel.runtime.microvm.kernel import Progress
from gemel.runtime.microvm.runtime import MicroVmRuntime

log = logging.getLogger("gemel.kernels")


def _runtime(core: Core) -> MicroVmRuntime:
    runtime = core.runtimes[RuntimeName.MICROVM]
    assert isinstance(runtime, MicroVmRuntime)
    return runtime


async def _told(work: Callable[[Progress], Awaitable[str]]) -> AsyncIterator[Json]:
    """Each line that the work tells, and its last word. Given up, the work is too."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def tell(line: str) -> None:
        log.info("%s", line)
        lines.put_nowait(line)

    async def whole() -> str:
        try:
            return await work(tell)
        finally:
            lines.put_nowait(None)

    task = asyncio.create_task(whole())
    try:
        while (line := await lines.get()) is not None:
            yield {"status": line}
        yield {"status": await task}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def fetch(core: Core) -> AsyncIterator[Json]:
    """Fetches the distribution's kernel, tries KVM; tells each step. Raises GemelError."""

    async def work(tell: Progress) -> str:
        used = await kernel.ensure_kernel(core.paths, tell)
        if used.own:
            tell(f"the guest kernel {(await kernel.fetch(core.paths, tell)).version} is ready")
        tell(f"guest kernel {used.version} is in use")
        tell("trying KVM by booting a guest with it")
        verdict = await _runtime(core).verdict()
        return f"micro VMs run with {verdict.name.upper()}: {verdict.reason}"

    return _told(work)


def build(core: Core, jobs: int | None, use: bool) -> AsyncIterator[Json]:
    """Builds the own small kernel; with ``use`` chooses it. Raises GemelError."""

    async def work(tell: Progress) -> str:
        made = await ownkernel.build(core.paths, tell, jobs)
        if not use:
            return f"the guest kernel {made.name} is ready: `gemel kernel use {made.name}`"
        await _use(core, made)
        return (
            f"micro VMs that start from now on use {made.name}; "
            "`gemel kernel use default` goes back"
        )

    return _told(work)


async def _use(core: Core, chosen: kernels.Kernel) -> None:
    await asyncio.to_thread(kernels.choose, core.paths, chosen)
    await _runtime(core).new_kernel()


async def use(core: Core, name: str) -> Json:
    """Chooses a kernel for what starts from now on. Raises NotFound, Conflict."""
    chosen = await asyncio.to_thread(kernels.find, core.paths, name)
    await _use(core, chosen)
    return _told_of(chosen, True)


def _told_of(one: kernels.Kernel, used: bool) -> Json:
    return {
        "Name": one.name,
        "Version": one.version,
        "Kind": "own" if one.own else "distribution",
        "Used": used,
    }


async def listed(core: Core) -> list[Json]:
    """The kernels that are here, without fetching any."""
    used = await asyncio.to_thread(kernels.current, core.paths)
    return [
        _told_of(one, one == used) for one in await asyncio.to_thread(kernels.present, core.paths)
    ]
