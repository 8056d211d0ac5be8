"""VMs that stand by: clones of no instance that have rehearsed a start, for the next instance.

An emulated VM spends nearly all of its start on translating the guest's kernel, and
what QEMU has translated is in no template. So of the kinds used lately one clone each is
kept that has been through it (guest/agent/rehearse.c); an instance that starts takes it
over with its relay (guest/relay/standby.c). It knows nothing of any instance until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from gemel.errors import GemelError
from gemel.host import cgroups, files, memfile, sparse
from gemel.host.pipes import Descriptor
from gemel.model.paths import Paths
from gemel.runtime.microvm import disks, rehearsal, relay
from gemel.runtime.microvm.machine import (
    MIB,
    Job,
    Limits,
    Machine,
    Nic,
    relay_records,
)
from gemel.runtime.microvm.protocol import Record, encode_records
from gemel.runtime.microvm.spares import Spares
from gemel.runtime.microvm.templates import RETRY, Kind, Templates
from gemel.runtime.microvm.tools import Tools

log = logging.getLogger("gemel.microvm")

#: So many are kept, each of another kind.
MOST = 2
#: What the host must have to spare beside the guest's memory.
SPARE = 1024 * MIB
#: Seconds after the last start before one is made: what has just started goes first.
PAUSE = 0.5
#: It ends after so many seconds in which none of its kind was started.
UNUSED = 600.0
#: Seconds until the relay of one has taken an instance's records.
TAKE_TIMEOUT = 10.0
#: The first of the sets of descriptors that it is handed; as in guest/relay/standby.c.
FIRST_SET = 64
#: User ids of their own, beside those of instances, for the same reason.
FIRST_USER = 0x71000000


def enabled() -> bool:
    """Whether any are kept: not with GEMEL_MICROVM_STANDBY=0."""
    return os.environ.get("GEMEL_MICROVM_STANDBY", "1") != "0"


def fits(machine: Machine) -> bool:
    """Whether an instance's machine can be one that stood by: without bind mounts and volumes, not
    to be copied while it runs, and emulated. (Under KVM nothing is translated.)"""
    return not (machine.kvm or machine.shares or machine.volumes or machine.source)


def adopt_commands(machine: Machine) -> Iterator[str]:
    """QMP commands, one a line, that put other files behind the disks of a running VM."""
    options = []
    for number, disk in enumerate(machine.disks):
        same: dict[str, object] = {
            "read-only": not disk.writable,
            "discard": "unmap" if disk.writable else "ignore",
        }
        name = f"own{number}"
        file = {"driver": "file", "node-name": name, "filename": f"/dev/fdset/{FIRST_SET + number}"}
        yield _command("blockdev-add", file | same | {"locking": "off"})
        options.append({"driver": "raw", "node-name": f"disk{number}", "file": name} | same)
    yield _command("blockdev-reopen", {"options": options})


def _command(name: str, arguments: object) -> str:
    # the VMM takes each byte singly
    return json.dumps({"execute": name, "arguments": arguments}, separators=(",", ":"))


def standby_records(machine: Machine, job: Job, orders: int) -> Iterator[Record]:
    """What a relay is told that is to stand by. orders: where the instance's records come from."""
    yield from relay_records(machine, job)
    yield ("standby", str(orders))
    yield ("rehearsal", encode_records(rehearsal.records(len(machine.nics))))


def order_records(machine: Machine, job: Job) -> Iterator[Record]:
    """What it is told when it becomes an instance's."""
    yield from relay_records(machine, job)
    yield ("adopt", "".join(f"{line}\n" for line in adopt_commands(machine)))


class Gone(Exception):
    """It did not become the instance's: the instance starts otherwise."""


class Standby:
    """One VM. Owns its pipes; without them its relay ends it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        transport: asyncio.ReadTransport,
        orders: Descriptor,
        left: Callable[[], object],
    ) -> None:
        """left: called when its folder and control group are its own no more."""
        self._left = left
        self.used_at = time.monotonic()
        self._reader = reader
        self._transport = transport
        self._orders = orders
        self._line: asyncio.Task[str] | None = None

    async def ready(self, limits: Limits) -> None:
        """Waits until it has rehearsed. Raises Gone."""
        try:
            async with asyncio.timeout(limits.clone + limits.config):
                line = await self._next()
        except TimeoutError:
            raise Gone("it takes too long") from None
        if line != "standby":
            raise Gone(line)
        self._line = asyncio.create_task(self._next())

    async def _next(self) -> str:
        return (await self._reader.readline()).decode("utf-8", "replace").strip()

    def when_over(self, call: Callable[[], object]) -> None:
        """call: when it ends, or is taken."""
        assert self._line is not None
        self._line.add_done_callback(lambda _: call())

    async def start(
        self, machine: Machine, job: Job, listening: Callable[[], Awaitable[None]]
    ) -> int | None:
        """Becomes an instance's, as relay.launch. None: it cannot, and the instance may start
        otherwise."""
        try:
            try:
                await self._take(machine, job)
            except Gone as gone:
                log.warning("a micro VM that stood by cannot be taken: %s", gone)
                self.close()
                return None
            finally:
                self._left()
            await listening()
            return await relay.outcome(self._reader, job.limits)
        finally:
            self.close()

    async def _take(self, machine: Machine, job: Job) -> None:
        assert self._line is not None
        try:
            async with asyncio.timeout(TAKE_TIMEOUT):
                await self._orders.write_all(encode_records(order_records(machine, job)))
                self._orders.close()
                answer = await self._line
        except (GemelError, OSError, TimeoutError) as error:
            raise Gone(str(error) or "it does not answer") from error
        if answer != "taken":
            raise Gone(answer or "it ended")

    def close(self) -> None:
        """Its relay ends it, unless it runs an instance's service by now."""
        if self._line is not None:
            self._line.cancel()
        self._orders.close()
        self._transport.close()

    def end(self) -> None:
        """Ends it, and clears away what it leaves."""
        self.close()
        self._left()


class Standbys:
    """Makes, keeps and ends them."""

    def __init__(
        self, paths: Paths, limits: Limits, templates: Templates, busy: Callable[[], bool]
    ) -> None:
        """busy: whether instances wait for their turn to start."""
        self._paths = paths
        self._limits = limits
        self._templates = templates
        self._spares = Spares(paths, "standby")
        self._busy = busy
        self._ready: dict[Kind, Standby] = {}
        self._wanted: dict[Kind, tuple[Tools, Machine]] = {}
        self._failed: dict[Kind, float] = {}
        self._started_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._clearing: set[asyncio.Task[None]] = set()

    def told(self) -> str:
        """How it is with them, for people."""
        if not enabled():
            return "no micro VM stands by: that is switched off (GEMEL_MICROVM_STANDBY=0)"
        now = len(self._ready)
        if not now:
            return "no micro VM stands by now; after one was started there will be one"
        return f"{now} {'stands' if now == 1 else 'stand'} by for the next of the same kind"

    async def sweep(self) -> None:
        """Ends what an earlier engine had."""
        await self._spares.sweep()

    async def close(self) -> None:
        """Ends them all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._wanted.clear()
        self.drop_all()
        await asyncio.gather(*self._clearing, return_exceptions=True)

    def started(self) -> None:
        """An instance has started: its service comes first now."""
        self._started_at = time.monotonic()

    def want(self, tools: Tools, machine: Machine, kind: Kind) -> None:
        """An instance of the kind starts, or will: soon there is to be a VM for the next one."""
        self._started_at = time.monotonic()
        self._changed.set()
        if not enabled() or not fits(machine):
            return
        if found := self._ready.get(kind):
            found.used_at = self._started_at
            return
        if time.monotonic() - self._failed.get(kind, -RETRY) < RETRY:
            return
        self._wanted[kind] = (tools, machine)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep())

    def take(self, kind: Kind, machine: Machine) -> Standby | None:
        """The kind's VM for an instance with this machine, to be started."""
        return self._ready.pop(kind, None) if fits(machine) else None

    def drop(self, kind: Kind) -> None:
        """Ends the kind's VM if there is one."""
        if one := self._ready.pop(kind, None):
            one.end()

    def drop_all(self) -> None:
        """Ends all."""
        for kind in list(self._ready):
            self.drop(kind)

    def _clear_later(self, folder: Path) -> None:
        task = asyncio.create_task(self._spares.clear(folder))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def _keep(self) -> None:
        """Makes what is wanted while nothing else starts, ends what is not used."""
        while self._wanted or self._ready:
            now = time.monotonic()
            for kind, one in list(self._ready.items()):
                if now - one.used_at > UNUSED:
                    self.drop(kind)
            wait = self._started_at + PAUSE - now
            if not self._wanted:
                wait = 10.0
            elif wait <= 0 and self._busy():
                wait = PAUSE
            if wait > 0:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), wait)
                continue
            kind, (tools, machine) = self._wanted.popitem()
            await self._make_one(kind, tools, machine)

    async def _make_one(self, kind: Kind, tools: Tools, machine: Machine) -> None:
        if kind in self._ready or memfile.available() < kind.memory + SPARE:
            return
        while len(self._ready) >= MOST:
            self.drop(min(self._ready, key=lambda kind: self._ready[kind].used_at))
        try:
            made = await self._make(kind, tools, machine)
        except (Gone, GemelError, OSError) as error:
            log.warning("no micro VM stands by: %s", error)
            self._failed[kind] = time.monotonic()
            return
        if made is not None:
            self._ready[kind] = made
            made.when_over(lambda: self._over(kind, made))

    def _over(self, kind: Kind, one: Standby) -> None:
        """It ended by itself."""
        if self._ready.get(kind) is one:
            self.drop(kind)

    async def _make(self, kind: Kind, tools: Tools, machine: Machine) -> Standby | None:
        """None: there is no template to clone. Raises Gone, GemelError, OSError."""
        folder = self._spares.folder()
        began = time.monotonic()
        try:
            async with self._templates.borrow(tools, machine, kind) as (guest, _):
                if guest is None:
                    return None
                bare = await self._machine(machine, folder)
                group = await asyncio.to_thread(cgroups.make, self._spares.group(folder))
                await asyncio.to_thread(cgroups.defer, self._spares.group(folder))
                job = Job(
                    folder=folder,
                    log=folder / "log",
                    user=FIRST_USER + secrets.randbits(24),
                    cgroups=tuple(group),
                    start=b"-",
                    limits=self._limits,
                    guest=guest,
                    discard=tools.discard,
                )
                made = await self._launch(tools.relay, bare, job)
        except BaseException:
            await asyncio.shield(self._spares.clear(folder))
            raise
        log.info("a micro VM stands by after %.1f s", time.monotonic() - began)
        return made

    async def _machine(self, machine: Machine, folder: Path) -> Machine:
        """The same machine with the rehearsal's disks, and taps of its own."""
        files.folder(folder)
        image = await rehearsal.ensure_image(self._paths)
        layer = folder / disks.NAME
        empty = await disks.ensure_empty(self._paths)
        await asyncio.to_thread(sparse.copy, empty, layer)
        nics = tuple(
            Nic(f"gs{folder.name}{number:x}", f"02:00:00:00:00:{number:02x}")
            for number in range(len(machine.nics))
        )
        return msgspec.structs.replace(machine, disks=rehearsal.disks(image, layer), nics=nics)

    async def _launch(self, program: Path, machine: Machine, job: Job) -> Standby:
        reader_fd, writer_fd = os.pipe2(os.O_CLOEXEC)
        try:
            orders = Descriptor(writer_fd)
            try:
                records = standby_records(machine, job, reader_fd)
                reader, transport = await relay.begin(program, job, records, [reader_fd])
            except BaseException:
                orders.close()
                raise
        finally:
            os.close(reader_fd)
        left = functools.partial(self._clear_later, job.folder)
        made = Standby(reader, transport, orders, left)
        try:
            await made.ready(job.limits)
        except BaseException:
            made.close()
            raise
        return made
