"""Lifecycle hooks (Compose: post_start, pre_stop): programs run in an instance, by a label.

The label ``gemel.hooks`` holds JSON: ``{"post_start": [HOOK…], "pre_stop": [HOOK…]}``, a hook
with ``command``, ``user``, ``working_dir``, ``environment`` and ``privileged`` as in the file.
"""

from __future__ import annotations

import asyncio

import msgspec

from gemel.engine import resolve
from gemel.engine.core import Core
from gemel.engine.records import Container
from gemel.errors import Failed, GemelError
from gemel.model.instance import Process

LABEL = "gemel.hooks"
POST_START, PRE_STOP = "post_start", "pre_stop"
#: Seconds that all hooks of one kind may take together.
LONGEST = 100.0
KEPT = 4096


class Hook(msgspec.Struct):
    """One entry of the file."""

    command: list[str] = []
    user: str = ""
    working_dir: str = ""
    environment: dict[str, str | None] = {}
    privileged: bool | str = False


def of(one: Container, which: str) -> list[Hook]:
    """The hooks of a container; none if the label cannot be read."""
    text = (one.request.labels or {}).get(LABEL, "")
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=dict[str, list[Hook]]).get(which, [])
    except msgspec.MsgspecError:
        return []


async def run(core: Core, one: Container, which: str) -> None:
    """Runs all hooks of a kind, one after the other. Raises Failed at the first that fails."""
    for hook in of(one, which):
        try:
            async with asyncio.timeout(LONGEST):
                status, output = await _run(core, one, hook)
        except TimeoutError as error:
            raise Failed(f"{which} of {one.name} took more than {LONGEST:g} s") from error
        except GemelError as error:
            raise Failed(f"{which} of {one.name} failed: {error.brief}", error.details) from error
        if status:
            raise Failed(f"{which} of {one.name} failed with exit code {status}", details=output)


async def _run(core: Core, one: Container, hook: Hook) -> tuple[int, str]:
    own = [key if value is None else f"{key}={value}" for key, value in hook.environment.items()]
    host = one.request.host_config
    process = Process(
        argv=tuple(hook.command),
        env=tuple(resolve.merge_env(one.request.env or [], own)),
        cwd=hook.working_dir or one.request.working_dir or "/",
        user=hook.user or one.request.user,
        groups=tuple((host.group_add or []) if host else ()),
        privileged=hook.privileged in (True, "true"),
    )
    output = bytearray()
    session = await core.runtime(one).exec(one.id, process)
    try:
        while (piece := await session.read()) is not None:
            output += piece[1][: max(0, KEPT - len(output))]
        return await session.wait(), output.decode("utf-8", "replace").strip()
    finally:
        await session.close()
