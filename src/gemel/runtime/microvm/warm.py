"""Warm replicas: snapshots of micro VMs whose service runs and is healthy, and their copies.

A snapshot is the guest's memory and its devices' state (files in memory, sealed) and
a copy of the instance's disk (a file without a name): all of it goes with the engine,
however that ends. Which instances share one is decided by what their guests are told,
less what makes each of them its own machine. What a copy still has of the original
is in docs/micro-vms.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import msgspec

from gemel.errors import GemelError
from gemel.host import files, memfile, sparse
from gemel.model.instance import InstanceSpec, MountKind, Process
from gemel.model.paths import Paths
from gemel.runtime.microvm import channel, disks, setup
from gemel.runtime.microvm.machine import MIB, Copy, Guest
from gemel.runtime.microvm.protocol import (
    CONTROL,
    FIRST_EXEC,
    Record,
    ToGuest,
    encode_records,
)
from gemel.runtime.microvm.templates import SPARE, Kind

log = logging.getLogger("gemel.microvm")

#: A service's label, and what it says for warm replicas.
LABEL = "gemel.snapshot"
WARM = "warm"
#: In the image: what each copy runs before its service goes on.
HOOK = "/etc/gemel/on-clone"
#: Files that are each instance's own.
OWN_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_IDENTITY = ("hostname", "machine-id", "nic")
#: Labels of which instances that share a snapshot must have the same: its memory is one service's.
GROUP = ("com.docker.compose.project", "com.docker.compose.service")
#: Snapshots that are kept, and the bytes that they may take together.
MOST = 3
MOST_BYTES = 1 << 30
#: Bytes that the devices' state may take. (It takes some hundred thousand.)
STATE_MOST = 16 * MIB
#: Seconds between a check that succeeds and the snapshot: its own connection is over then.
SETTLE = 1.0
#: After a failure no other one of the same service is tried for so many seconds.
RETRY = 30.0
#: Seconds for which a snapshot is kept when no instance is left that could use it.
GRACE = 60.0
#: In the run folder: what a snapshot of the instance would be one of.
FACTS = "warm"


class Facts(msgspec.Struct, frozen=True):
    """What a running instance's snapshot would be one of. memory: of its guest, in bytes."""

    key: str
    kind: str
    memory: int


def why_not(spec: InstanceSpec) -> str | None:
    """Why no instance of this kind can be a copy, nor be copied. Pure."""
    if any(mount.kind is not MountKind.TMPFS for mount in spec.mounts):
        return "no warm replicas: it has bind mounts or volumes"
    if spec.process.tty or spec.process.stdin:
        return "no warm replicas: it has a terminal or an open standard input"
    if spec.halted:
        return "no warm replicas: it is held for a debugger"
    return None


def wanted(spec: InstanceSpec) -> bool:
    """Whether warm replicas are asked for."""
    return dict(spec.labels).get(LABEL) == WARM


def shared_records(spec: InstanceSpec, contents: Mapping[Path, bytes]) -> Iterator[Record]:
    """What a guest is told, less what is each instance's own. Pure."""
    for record in setup.config_records(spec, {}, contents):
        match record[0]:
            case "hostname" | "machine-id":
                continue
            case "nic":
                yield ("nic", record[2], record[5], record[6])
            case "file" if record[1] in OWN_FILES:
                yield record[:5]
            case _:
                yield record
    own = f"HOSTNAME={spec.hostname}"
    env = tuple(pair for pair in spec.process.env if pair != own)
    process = msgspec.structs.replace(spec.process, env=env)
    yield from setup.start_records(msgspec.structs.replace(spec, hostname="", process=process))
    yield ("image", spec.image_id, str(spec.root_image))
    labels = dict(spec.labels)
    yield ("group", *(labels.get(name, "") for name in GROUP))
    yield ("networks", *sorted(nic.bridge for nic in spec.network.interfaces))


def key(spec: InstanceSpec) -> str:
    """Equal for instances that may share a snapshot. Reads the instance's files. Raises OSError."""
    contents = {file.source: file.source.read_bytes() for file in spec.files}
    return hashlib.sha256(encode_records(shared_records(spec, contents))).hexdigest()


def identity_records(spec: InstanceSpec, contents: Mapping[Path, bytes]) -> Iterator[Record]:
    """IDENTITY, without time and entropy, which the relay adds. Pure."""
    for record in setup.config_records(spec, {}, contents):
        own = record[1] in OWN_FILES if record[0] == "file" else record[0] in _IDENTITY
        if own:
            yield record


def hook_records(spec: InstanceSpec) -> Iterator[Record]:
    """EXEC of the image's hook, as the service's user. Pure."""
    own = spec.process
    process = Process(
        argv=(HOOK,),
        env=own.env,
        cwd=own.cwd,
        user=own.user,
        groups=own.groups,
    )
    yield from setup.exec_records(spec, process)
    yield ("hook",)


def digest(kind: Kind) -> str:
    """The kind of VM, as short as a file likes it."""
    return hashlib.sha256(msgspec.json.encode(kind)).hexdigest()


class Snapshot:
    """A saved service. Owns its descriptors."""

    def __init__(self, kind: str, guest: Guest, disk: int) -> None:
        self.kind = kind
        self.guest = guest
        self.disk = disk
        self.used_at = time.monotonic()

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(memfile.used(fd) for fd in (self.guest.memory, self.guest.state, self.disk))

    def seal(self) -> None:
        """Nobody can change its memory any more, the original's VMM neither. Raises Failed."""
        memfile.seal(self.guest.memory)
        memfile.seal(self.guest.state)

    def dup(self) -> Snapshot:
        """With descriptors of its own."""
        guest = Guest(memory=os.dup(self.guest.memory), state=os.dup(self.guest.state))
        return Snapshot(self.kind, guest, os.dup(self.disk))

    def close(self) -> None:
        """Copies that run keep what they have mapped."""
        for fd in (self.guest.memory, self.guest.state, self.disk):
            os.close(fd)


class Warm:
    """Takes, keeps and forgets snapshots."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._keys: dict[str, str] = {}
        self._ready: dict[str, Snapshot] = {}
        self._making: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def close(self) -> None:
        """Gives up what is being taken, forgets all."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for timer in self._timers.values():
            timer.cancel()
        for one in list(self._ready):
            self.drop(one)

    # --- instances ----------------------------------------------------------------

    async def note(self, spec: InstanceSpec) -> str:
        """Remembers an instance that is to start; why it has no part in this, or nothing."""
        if not wanted(spec):
            return ""
        # an engine that was killed may have left it
        (spec.layer / disks.WARM_NAME).unlink(missing_ok=True)
        if reason := why_not(spec):
            return reason
        try:
            self._keys[spec.id] = await asyncio.to_thread(key, spec)
        except OSError as error:
            return f"no warm replicas: a file for the instance cannot be read: {error}"
        return ""

    def adopt(self, spec: InstanceSpec) -> None:
        """Remembers an instance that runs already."""
        if wanted(spec) and (facts := self._facts(spec.id)):
            self._keys[spec.id] = facts.key

    def forget(self, id: str) -> None:
        """It is removed: without another instance of its kind its snapshot goes, too."""
        self._locks.pop(id, None)
        gone = self._keys.pop(id, None)
        if gone is None or gone in self._keys.values():
            return
        loop = asyncio.get_running_loop()
        self._timers[gone] = loop.call_later(GRACE, self._expire, gone)

    def _expire(self, gone: str) -> None:
        self._timers.pop(gone, None)
        if gone not in self._keys.values():
            self.drop(gone)
            self._failed.pop(gone, None)

    def takes_part(self, id: str) -> bool:
        """Whether the instance may be saved while it runs."""
        return id in self._keys

    def still(self, id: str) -> asyncio.Lock:
        """Held while a snapshot of the instance is taken."""
        return self._locks.setdefault(id, asyncio.Lock())

    # --- copies -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def borrow(
        self, spec: InstanceSpec, kind: Kind
    ) -> AsyncIterator[tuple[Guest, Copy] | str]:
        """What to start a copy with while the block runs, or why there is nothing."""
        found = self._find(spec, kind)
        if isinstance(found, str):
            yield found
            return
        found.used_at = time.monotonic()
        held = found.dup()
        target = spec.layer / disks.WARM_NAME
        try:
            source = Path(f"/proc/self/fd/{held.disk}")
            await asyncio.to_thread(sparse.copy, source, target)
            contents = await asyncio.to_thread(_contents, spec)
            yield (
                held.guest,
                Copy(
                    identity=setup.frames(
                        CONTROL, ToGuest.IDENTITY, identity_records(spec, contents)
                    ),
                    hook=setup.frames(FIRST_EXEC, ToGuest.EXEC, hook_records(spec)),
                    disk=target,
                ),
            )
        finally:
            held.close()
            target.unlink(missing_ok=True)

    def _find(self, spec: InstanceSpec, kind: Kind) -> Snapshot | str:
        wanted_key = self._keys[spec.id]
        if not disks.is_pristine(spec.layer):
            return "it has run before: a warm replica is a new instance"
        found = self._ready.get(wanted_key)
        if found is not None and found.kind == digest(kind):
            return found
        if found is not None:
            self.drop(wanted_key)
        _, reason = self._failed.get(wanted_key, (0.0, ""))
        if reason:
            return f"no snapshot of the running service: {reason}"
        return "no snapshot of the running service has been taken yet"

    def failed(self, id: str, reason: str) -> None:
        """The instance could not be started as a copy: its snapshot is no good."""
        self.drop(self._keys[id], reason or "unknown")

    def drop(self, gone: str, reason: str = "") -> None:
        """Forgets a snapshot. reason: why it is broken, so that none is taken for some time."""
        if snapshot := self._ready.pop(gone, None):
            snapshot.close()
        if reason:
            log.warning("the snapshot of a running service is dropped: %s", reason)
            self._failed[gone] = (time.monotonic(), reason)

    # --- snapshots ----------------------------------------------------------------

    def started(self, id: str, kind: Kind) -> None:
        """It runs as one that can be saved: notes of what, for later engines too."""
        facts = Facts(self._keys[id], digest(kind), kind.memory)
        files.write(self._paths.instance_run(id) / FACTS, msgspec.json.encode(facts))

    def _facts(self, id: str) -> Facts | None:
        try:
            raw = (self._paths.instance_run(id) / FACTS).read_bytes()
            return msgspec.json.decode(raw, type=Facts)
        except (OSError, msgspec.DecodeError):
            return None

    def healthy(self, id: str) -> None:
        """It is healthy: begins to take a snapshot of it, if there is none of its kind."""
        wanted_key = self._keys.get(id)
        if wanted_key is None or wanted_key in self._ready or wanted_key in self._making:
            return
        at, reason = self._failed.get(wanted_key, (0.0, ""))
        if reason and time.monotonic() - at < RETRY:
            return
        facts = self._facts(id)
        if facts is None or facts.key != wanted_key:
            return
        task = asyncio.create_task(self._take(id, facts))
        self._making[wanted_key] = task
        task.add_done_callback(lambda done: self._taken(id, wanted_key, done))

    def _taken(self, id: str, one: str, task: asyncio.Task[None]) -> None:
        self._making.pop(one, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        words = str(error.details or error.brief) if isinstance(error, GemelError) else str(error)
        log.warning("no snapshot of the running instance %s: %s", id[:12], words)
        self._failed[one] = (time.monotonic(), words[:300])

    async def _take(self, id: str, facts: Facts) -> None:
        """Raises GemelError, OSError."""
        await asyncio.sleep(SETTLE)
        async with self.still(id):
            if (self._paths.instance_run(id) / "paused").exists():
                return
            await asyncio.to_thread(self._room, facts)
            began = time.monotonic()
            snapshot = await asyncio.to_thread(self._empty, facts)
            try:
                fds = (snapshot.guest.memory, snapshot.guest.state, snapshot.disk)
                await channel.save(self._paths.instance_run(id), fds)
                snapshot.seal()
            except BaseException:
                snapshot.close()
                raise
        self._failed.pop(facts.key, None)
        self._ready[facts.key] = snapshot
        took = time.monotonic() - began
        log.info(
            "a snapshot of the running instance %s, %d MiB, was taken in %.2f s",
            id[:12],
            snapshot.size // MIB,
            took,
        )
        self._evict()

    def _room(self, facts: Facts) -> None:
        if memfile.available() < facts.memory + SPARE:
            raise OSError("the host has too little memory to spare")

    def _empty(self, facts: Facts) -> Snapshot:
        """Files for a snapshot. Raises Failed, OSError."""
        with contextlib.ExitStack() as undo:
            memory = memfile.make("gemel-warm", facts.memory)
            undo.callback(os.close, memory)
            state = memfile.make("gemel-warm-state", STATE_MOST)
            undo.callback(os.close, state)
            memfile.fix_size(state)  # the VMM writes into it
            folder = self._paths.root / "microvm"
            disk = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            undo.pop_all()
        return Snapshot(facts.kind, Guest(memory=memory, state=state), disk)

    def _evict(self) -> None:
        """Forgets the ones that were not used for longest, until the rest is within bounds."""
        oldest = sorted(self._ready, key=lambda one: self._ready[one].used_at)
        total = sum(snapshot.size for snapshot in self._ready.values())
        for one in oldest[:-1]:
            if len(self._ready) <= MOST and total <= MOST_BYTES:
                return
            total -= self._ready[one].size
            self.drop(one)


def _contents(spec: InstanceSpec) -> dict[Path, bytes]:
    return {file.source: file.source.read_bytes() for file in spec.files}
