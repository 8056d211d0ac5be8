"""Programs of a toolbox beside instances (facade.Debugging), and the image they come from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from gemel.engine import resolve, spec
from gemel.engine.core import Core, Once
from gemel.engine.facade import Json
from gemel.engine.lifecycle import Lifecycle
from gemel.engine.records import Container
from gemel.errors import Conflict, GemelError, NotFound, Unsupported
from gemel.image import toolbox
from gemel.model.docker import DebugCreate
from gemel.model.image import Image
from gemel.model.instance import Process, Toolbox
from gemel.runtime.base import ExecSession

#: Bytes of a service's command and environment that its debug sessions are told of.
SPEC_MOST = 96 << 10


def _image(core: Core, ref: str) -> Image:
    """The toolbox. Raises NotFound with what to do."""
    try:
        return core.images.find(ref or toolbox.reference())
    except NotFound as error:
        if ref:
            raise
        raise NotFound(
            "the toolbox is not there yet", resolution="`gemel debug --prepare` makes it"
        ) from error


def check(core: Core, one: Container, wanted: DebugCreate) -> None:
    """Raises Conflict, NotFound, Unsupported for what cannot be looked at so."""
    if not core.runtime(one).capabilities.debug:
        raise Unsupported(f"a {one.runtime.value} has no debug sessions")
    if wanted.ended and one.state.running:
        raise Conflict(
            f"container {one.name} runs",
            details="the files of one that has ended were asked for",
            resolution="leave --from-crash out, or stop it first",
        )
    if not wanted.ended and not one.state.running:
        raise Conflict(
            f"Container {one.id} is not running",
            resolution="--from-crash looks at what it left, --pause-at-start starts it held",
        )
    _image(core, wanted.image)


def _told(one: Container) -> str:
    """What the scripts of the toolbox are told of the service, as JSON."""
    facts = {
        "argv": one.argv,
        "env": one.request.env or [],
        "cwd": one.request.working_dir or "/",
        "user": one.request.user,
    }
    text = msgspec.json.encode(facts).decode()
    return text if len(text) <= SPEC_MOST else "{}"


def process(
    one: Container, wanted: DebugCreate, tty: bool, size: tuple[int, int] | None
) -> Process:
    """The program of the toolbox."""
    base = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LC_ALL=C.UTF-8",
        "PYTHONUTF8=1",
        f"GEMEL_SERVICE={one.name}",
        f"GEMEL_SPEC={_told(one)}",
    ]
    if tty:
        base.append("TERM=xterm")
    return Process(
        argv=tuple(wanted.cmd or ("/bin/bash",)),
        env=tuple(resolve.merge_env(base, wanted.env or [])),
        cwd=wanted.working_dir or "/",
        tty=tty,
        stdin=wanted.attach_stdin,
        size=size,
    )


async def start(
    core: Core, one: Container, wanted: DebugCreate, tty: bool, size: tuple[int, int] | None
) -> ExecSession:
    """Starts it. While it runs an unhealthy instance is left alone. Raises GemelError kinds."""
    check(core, one, wanted)
    image = _image(core, wanted.image)
    tools = Toolbox(root_image=core.images.disk(image), rootfs=await core.images.rootfs(image))
    own = core.images.find(one.image_id)
    rootfs = await core.images.rootfs(own) if wanted.ended else None
    full = spec.build(core, one, rootfs=rootfs, namespace=None, write=False)
    session = await core.runtime(one).debug(
        full, tools, process(one, wanted, tty, size), not wanted.ended
    )
    live = core.live[one.id]
    live.debugged += 1
    core.spawn(one, _until_end(core, one, session), "debug session")
    return session


async def _until_end(core: Core, one: Container, session: ExecSession) -> None:
    try:
        await session.wait()
    finally:
        if one.id in core.live:
            core.live[one.id].debugged -= 1


class Debugging:
    """See facade.Debugging."""

    def __init__(self, core: Core, lifecycle: Lifecycle) -> None:
        self.core = core
        self._lifecycle = lifecycle
        self._making = asyncio.Lock()

    async def prepare(self, ref: str) -> AsyncIterator[Json]:
        """Makes the toolbox if it is missing (``ref`` empty), else sees that ``ref`` is there.

        The last message is ``{"aux": {"ID": id}}``. Raises NotFound, Unavailable, Failed.
        """
        if ref:
            yield {"aux": {"ID": self.core.images.find(ref).id}}
            return
        name = toolbox.reference()
        async with self._making:
            if self._known(name) is None:
                yield {"status": "making the toolbox from Debian's packages, once"}
                extra = await asyncio.to_thread(toolbox.extra)
                source = self.core.images.bootstrap(name, "", toolbox.PACKAGES, extra)
                async for message in source:
                    if "aux" not in message:
                        yield message
                await self._forget_old(name)
        yield {"aux": {"ID": self.core.images.find(name).id}}

    async def start(self, ref: str, halted: bool, env: Sequence[str]) -> None:
        """Starts a container for a debugger: stopped before its first instruction (SIGCONT
        lets it go), or with further variables. Raises NotModified if it runs, Unsupported."""
        one = self.core.container(ref)
        if not self.core.runtime(one).capabilities.debug:
            raise Unsupported(f"a {one.runtime.value} cannot be started for a debugger")
        for item in env:
            resolve.merge_env([], [item])
        await self._lifecycle.start(one, once=Once(halted, tuple(env)))

    def _known(self, name: str) -> Image | None:
        try:
            return self.core.images.find(name)
        except NotFound:
            return None

    async def _forget_old(self, name: str) -> None:
        """Toolboxes of earlier versions of gemel."""
        for tag in list(self.core.images.tags):
            if f"{toolbox.NAME}:" in tag and not tag.endswith(f"/{name}"):
                try:
                    await self.core.images.remove(tag)
                except GemelError:
                    continue  # something uses it
