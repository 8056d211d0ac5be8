"""Templates: guests that were booted once and saved, of which each further VM is a clone.

A template is two files in memory: what the guest's memory held when its agent
greeted, with nothing mounted and no address, and the state of its devices. Both are
sealed, so no clone can change what another one starts from, and they have no
name: when the engine ends, however it ends, they go with their last user.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gemel.errors import GemelError
from gemel.host import cgroups, files, memfile
from gemel.model.paths import Paths
from gemel.runtime.microvm import disks, relay
from gemel.runtime.microvm.machine import MIB, Disk, Guest, Job, Limits, Machine, Nic
from gemel.runtime.microvm.spares import Spares
from gemel.runtime.microvm.tools import Tools

log = logging.getLogger("gemel.microvm")

#: Templates that are kept, and the bytes that they may take together.
MOST = 6
MOST_BYTES = 1 << 30
#: Memory that the host must have to spare, beside what the guest may take.
SPARE = 512 * MIB
#: How long a start waits for a template before it boots cold, in seconds.
PATIENCE = 45.0
#: After a failure no other template of the kind is made for so many seconds.
RETRY = 60.0
#: A template's VM is nobody: a user id that no instance has.
USER = 0x70000000 - 2


class Kind(msgspec.Struct, frozen=True):
    """What a template and its clones must have in common.

    made_from: path, size and time of change of QEMU, kernel, initrd and relay.
    """

    qemu_version: str
    kvm: bool
    memory: int
    cpus: int
    command_line: str
    nics: int
    made_from: tuple[tuple[str, int, int], ...]


def kind_of(tools: Tools, machine: Machine) -> Kind:
    """Looks at the files as they are now. Raises OSError."""
    found = []
    for path in (Path(machine.qemu), machine.kernel, machine.initrd, tools.relay):
        facts = path.stat()
        found.append((str(path), facts.st_size, facts.st_mtime_ns))
    return Kind(
        tools.qemu_version,
        machine.kvm,
        machine.memory,
        machine.cpus,
        machine.command_line,
        len(machine.nics),
        tuple(found),
    )


class Template:
    """A saved guest. Owns its descriptors."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.used_at = time.monotonic()

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return memfile.used(self.guest.memory) + memfile.used(self.guest.state)

    def close(self) -> None:
        """Clones that run keep what they have mapped."""
        os.close(self.guest.memory)
        os.close(self.guest.state)


class Templates:
    """Makes, keeps and forgets them."""

    def __init__(self, paths: Paths, limits: Limits) -> None:
        self._limits = limits
        self._spares = Spares(paths, "templates")
        self._ready: dict[Kind, Template] = {}
        self._making: dict[Kind, asyncio.Task[Template]] = {}
        self._failed: dict[Kind, tuple[float, str]] = {}

    async def sweep(self) -> None:
        """Ends what an earlier engine was making when it was killed."""
        await self._spares.sweep()

    async def close(self) -> None:
        """Gives up what is being made, forgets all."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for kind in list(self._ready):
            self.drop(kind)

    def prepare(self, tools: Tools, machine: Machine, kind: Kind) -> None:
        """Begins to make the kind's template, if there is none, ahead of need."""
        if kind not in self._ready and self._why_not(kind) is None:
            self._task(tools, machine, kind)

    @contextlib.asynccontextmanager
    async def borrow(
        self, tools: Tools, machine: Machine, kind: Kind
    ) -> AsyncIterator[tuple[Guest | None, str]]:
        """The kind's template while the block runs, or None and the reason."""
        template, reason = await self._get(tools, machine, kind)
        if template is None:
            yield None, reason
            return
        template.used_at = time.monotonic()
        # descriptors of our own: it may be forgotten meanwhile
        held = Guest(memory=os.dup(template.guest.memory), state=os.dup(template.guest.state))
        try:
            yield held, ""
        finally:
            os.close(held.memory)
            os.close(held.state)

    async def _get(self, tools: Tools, machine: Machine, kind: Kind) -> tuple[Template | None, str]:
        if found := self._ready.get(kind):
            return found, ""
        if reason := self._why_not(kind):
            return None, reason
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(self._task(tools, machine, kind)), ""
        except TimeoutError:
            return None, "its template is not ready yet"
        except (GemelError, OSError) as error:
            return None, f"no template could be made: {_text(error)}"

    def _why_not(self, kind: Kind) -> str | None:
        """Why no template of this kind can be made now."""
        if kind in self._making:
            return None
        at, reason = self._failed.get(kind, (0.0, ""))
        if reason and time.monotonic() - at < RETRY:
            return f"no template could be made: {reason}"
        if memfile.available() < kind.memory + SPARE:
            return "the host has too little memory to spare for a template"
        return None

    def _task(self, tools: Tools, machine: Machine, kind: Kind) -> asyncio.Task[Template]:
        task = self._making.get(kind)
        if task is None:
            task = self._making[kind] = asyncio.create_task(self._make(tools, machine, kind))
            task.add_done_callback(lambda done: self._made(kind, done))
        return task

    def _made(self, kind: Kind, task: asyncio.Task[Template]) -> None:
        self._making.pop(kind, None)
        if task.cancelled():
            return
        if error := task.exception():
            log.warning("no template could be made: %s", _text(error))
            self._failed[kind] = (time.monotonic(), _text(error))
            return
        self._failed.pop(kind, None)
        self._ready[kind] = task.result()
        self._evict()

    def _evict(self) -> None:
        """Forgets the ones that were not used for longest, until the rest is within bounds."""
        oldest = sorted(self._ready, key=lambda kind: self._ready[kind].used_at)
        total = sum(template.size for template in self._ready.values())
        for kind in oldest[:-1]:
            if len(self._ready) <= MOST and total <= MOST_BYTES:
                return
            total -= self._ready[kind].size
            self.drop(kind)

    def drop(self, kind: Kind, reason: str = "") -> None:
        """Forgets a template. reason: why it is broken, so that none is made for some time."""
        if template := self._ready.pop(kind, None):
            template.close()
        if reason:
            log.warning("a template is dropped: %s", reason)
            self._failed[kind] = (time.monotonic(), reason)

    @property
    def kinds(self) -> list[Kind]:
        """The kinds that there are templates of."""
        return list(self._ready)

    async def _make(self, tools: Tools, machine: Machine, kind: Kind) -> Template:
        """Boots a guest with empty disks and saves it. Raises GemelError, OSError."""
        folder = files.folder(self._spares.folder())
        guest: Guest | None = None
        began = time.monotonic()
        try:
            guest = _empty_guest(machine.memory)
            bare = _template_machine(machine, folder)
            group = await asyncio.to_thread(cgroups.make, self._spares.group(folder))
            job = Job(
                folder=folder,
                log=folder / "log",
                user=USER,
                cgroups=tuple(group),
                start=b"-",
                limits=self._limits,
                template=True,
                guest=guest,
            )
            await relay.launch(tools.relay, bare, job)
            # the VM has ended: nobody has the memory mapped for writing any more
            memfile.seal(guest.memory)
            memfile.seal(guest.state)
        except BaseException:
            if guest is not None:
                Template(guest).close()
            raise
        finally:
            await asyncio.shield(self._spares.clear(folder))
        made = Template(guest)
        log.info(
            "a template of %d MiB (%d MiB of memory, %d networks) was made in %.1f s",
            made.size // MIB,
            kind.memory // MIB,
            kind.nics,
            time.monotonic() - began,
        )
        return made


def _empty_guest(memory: int) -> Guest:
    first = memfile.make("gemel-memory", memory)
    try:
        return Guest(memory=first, state=memfile.make("gemel-state"))
    except BaseException:
        os.close(first)
        raise


def _template_machine(machine: Machine, folder: Path) -> Machine:
    """The same machine, with disks of the fixed size that hold nothing, and taps of its own.

    It has no shares and volumes: a clone's are in slots that are empty here.
    """
    made = []
    for disk in machine.disks:
        path = folder / f"{disk.serial}.img"
        path.touch(mode=0o600)
        os.truncate(path, disks.SIZE)
        made.append(Disk(path, disk.serial, disk.writable))
    nics = tuple(Nic(f"gt{n}", f"02:00:00:00:00:{n:02x}") for n in range(len(machine.nics)))
    return msgspec.structs.replace(machine, disks=tuple(made), nics=nics, shares=(), volumes=())


def _text(error: BaseException) -> str:
    if isinstance(error, GemelError):
        return " ".join(f"{error.brief}: {error.details or ''}".split())[:300]
    return str(error) or type(error).__name__
