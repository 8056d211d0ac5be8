"""Guest kernels, for those who ask before the first micro VM needs one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.model.instance import RuntimeName
from gemel.runtime.microvm.kernel import ensure_kernel, present
from gemel.runtime.microvm.runtime import MicroVmRuntime


async def fetch(core: Core) -> AsyncIterator[Json]:
    """Fetches the kernel, makes the initrd, tries KVM; tells each step. Raises GemelError."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def work() -> str:
        try:
            kernel = await ensure_kernel(core.paths, lines.put_nowait)
            lines.put_nowait(f"guest kernel {kernel.version} is ready")
            runtime = core.runtimes[RuntimeName.MICROVM]
            assert isinstance(runtime, MicroVmRuntime)
            lines.put_nowait("trying KVM by booting a guest with it")
            verdict = await runtime.verdict()
            return f"micro VMs run with {verdict.name.upper()}: {verdict.reason}"
        finally:
            lines.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        while (line := await lines.get()) is not None:
            yield {"status": line}
        yield {"status": await task}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def listed(core: Core) -> list[Json]:
    """The kernels that are here, without fetching any."""
    return [
        {"Name": kernel.name, "Version": kernel.version, "Used": used}
        for kernel, used in await asyncio.to_thread(present, core.paths)
    ]
