"""The container methods that the API calls (facade.Containers)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable

from gemel.engine import (
    attaching,
    committing,
    creation,
    filters,
    inspect,
    resolve,
    spec,
    stats,
    suits,
    tarowner,
)
from gemel.engine.core import Core, Live
from gemel.engine.facade import Attached, CommitRequest, Filters, Json, Jsons, LogQuery
from gemel.engine.handover import Handover
from gemel.engine.lifecycle import Lifecycle
from gemel.engine.listing import Listing
from gemel.engine.records import Container, parse_stamp
from gemel.errors import Conflict, GemelError, InvalidInput, NotFound
from gemel.host.files import disk_use
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import InstanceSpec
from gemel.runtime.base import PathStat
from gemel.runtime.container import users


class Containers:
    """See facade.Containers."""

    def __init__(self, core: Core, lifecycle: Lifecycle) -> None:
        self.core = core
        self._listing = Listing(core)
        self.lifecycle = lifecycle
        self.handover = Handover(core, lifecycle)
        self._names: set[str] = set()

    @property
    def generation(self) -> int:
        """See facade.Containers."""
        return self.core.generation

    async def create(self, request: CreateRequest, name: str | None, platform: str = "") -> Json:
        """Makes a container; nothing runs yet. Raises NotFound, Conflict, InvalidInput."""
        core = self.core
        plain = resolve.container_name(name) if name else self._new_name()
        self._claim(plain)
        try:
            one = await creation.create(core, request, plain, platform)
            core.live[one.id] = Live()
            core.containers[one.id] = one
            core.promised -= {(end.network_id, end.address) for end in one.endpoints}
            await core.save(one)
        finally:
            self._names.discard(plain)
        core.emit(one, "create")
        return {"Id": one.id, "Warnings": one.warnings}

    def _new_name(self) -> str:
        taken = {c.name for c in self.core.containers.values()}
        return next(n for n in iter(creation.random_name, "") if n not in taken)

    def _claim(self, name: str) -> None:
        for other in self.core.containers.values():
            if other.name == name:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container '
                    f'"{other.id}". You have to remove (or rename) that container to be able to '
                    "reuse that name."
                )
        if name in self._names:
            raise Conflict(f'Conflict. The container name "/{name}" is being created already')
        self._names.add(name)

    async def list(self, all: bool, limit: int, size: bool, wanted: Filters) -> Jsons:
        """GET /containers/json."""
        filters.known(wanted, filters.CONTAINER_FILTERS)
        core = self.core
        found = sorted(core.containers.values(), key=lambda c: c.created, reverse=True)
        everything = all or limit > 0 or "status" in wanted or "exited" in wanted
        before = [parse_stamp(core.container(r).created) for r in wanted.get("before", [])]
        since = [parse_stamp(core.container(r).created) for r in wanted.get("since", [])]
        ancestors = set()
        for ref in wanted.get("ancestor", []):
            with contextlib.suppress(GemelError):
                ancestors.add(core.images.find(ref).id)
        result = []
        for one in found:
            born = parse_stamp(one.created)
            if not everything and not (one.state.running or one.state.status == "restarting"):
                continue
            if any(born >= b for b in before) or any(born <= s for s in since):
                continue
            if filters.container(one, wanted, ancestors):
                result.append(one)
        shown = result[:limit] if limit > 0 else result
        if size:
            return [inspect.summary(core, one) | await sizes(core, one) for one in shown]
        return self._listing.entries(shown)

    async def inspect(self, ref: str, size: bool = False) -> Json:
        """GET /containers/ID/json."""
        one = self.core.container(ref)
        shown = inspect.full(self.core, one)
        if size:
            shown |= await sizes(self.core, one)
        return shown

    async def start(self, ref: str) -> None:
        await self.lifecycle.start(self.core.container(ref))

    async def start_held(self, ref: str) -> None:
        """Starts it without names and ports of its own."""
        await self.handover.start_held(self.core.container(ref))

    async def admit(self, ref: str, replaces: str, seconds: float) -> None:
        """Once it is ready, it takes over from the container ``replaces`` (empty: from none)."""
        old = self.core.container(replaces) if replaces else None
        await self.handover.admit(self.core.container(ref), old, seconds)

    async def drain(self, ref: str, seconds: float) -> None:
        """Takes it out of names and ports, and waits for its connections to end."""
        await self.handover.drain(self.core.container(ref), seconds)

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        await self.lifecycle.stop(self.core.container(ref), timeout, signal)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        await self.lifecycle.restart(self.core.container(ref), timeout, signal)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        await self.lifecycle.kill(self.core.container(ref), signal)

    async def pause(self, ref: str) -> None:
        await self.lifecycle.pause(self.core.container(ref))

    async def unpause(self, ref: str) -> None:
        await self.lifecycle.unpause(self.core.container(ref))

    async def rename(self, ref: str, name: str) -> None:
        """Gives it another name, also among its network names."""
        one = self.core.container(ref)
        plain = resolve.container_name(name)
        if plain == one.name:
            raise InvalidInput("Renaming a container with the same name as its current name")
        self._claim(plain)
        try:
            old, one.name = one.name, plain
            await self.core.save(one)
            await self.core.sync_names()
        finally:
            self._names.discard(plain)
        self.core.emit(one, "rename", oldName=f"/{old}")

    async def remove(self, ref: str, force: bool = False, volumes: bool = False) -> None:
        await self.lifecycle.remove(self.core.container(ref), force=force, volumes=volumes)

    async def waiter(self, ref: str, condition: str = "not-running") -> Awaitable[Json]:
        """See facade.Containers.waiter."""
        one = self.core.container(ref)
        live = self.core.live[one.id]
        if condition == "removed":
            return self._removed(one, live)
        if condition == "next-exit":
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            live.exits.add(future)
            return self._next_exit(one, live, future)
        if condition not in ("", "not-running"):
            raise InvalidInput(f"invalid condition: {condition!r}")
        return self._not_running(one, live)

    async def _not_running(self, one: Container, live: Live) -> Json:
        await live.ended.wait()
        return _waited(one)

    async def _removed(self, one: Container, live: Live) -> Json:
        await live.gone.wait()
        return _waited(one)

    async def _next_exit(self, one: Container, live: Live, future: asyncio.Future[int]) -> Json:
        try:
            await future
        finally:
            live.exits.discard(future)
        return _waited(one)

    async def logs(
        self, ref: str, query: LogQuery
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        """See facade.Containers.logs."""
        one = self.core.container(ref)
        if not (query.stdout or query.stderr):
            raise InvalidInput("Bad parameters: you must choose at least one stream")
        return one.request.tty, attaching.log_pieces(self.core, one, query)

    async def attach(self, ref: str, *, history: bool, stdin: bool) -> Attached:
        """See facade.Containers.attach. A container that has not started yet may be attached to."""
        one = self.core.container(ref)
        if one.state.status == "paused":
            raise Conflict(f"Container {one.id} is paused, unpause the container before attach.")
        return attaching.attach(self.core, one, history=history, stdin=stdin)

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Sets the terminal's size; of one that does not run yet, for its start."""
        one = self.core.container(ref)
        self.core.live[one.id].size = (rows, columns)
        if not one.state.running:
            if one.state.status == "created":
                return
            raise Conflict(f"Container {one.id} is not running")
        await self.core.runtime(one).resize(one.id, rows, columns)

    async def top(self, ref: str, ps_args: str) -> Json:
        """The processes as ps shows them."""
        one = self._running(ref)
        titles, rows = await self.core.runtime(one).processes(one.id, ps_args or "-ef")
        return {"Titles": titles, "Processes": rows}

    async def stats(self, ref: str) -> Json:
        """One sample; of one that does not run, zeros."""
        return await stats.sample(self.core, self.core.container(ref))

    async def update(self, ref: str, body: Json) -> Json:
        """Changes limits and the restart policy. Raises InvalidInput, Unsupported."""
        one = self.core.container(ref)
        host = one.request.host_config or HostConfig()
        changed = creation.updated_host(host, body)
        resolve.check_restart(changed)
        suits.check_limits(changed)
        async with self.core.locked(one):
            if one.state.running and creation.limits(host) != creation.limits(changed):
                await self.core.runtime(one).update(one.id, resolve.resources(changed))
            one.request.host_config = changed
            await self.core.save(one)
        self.core.emit(one, "update")
        return {"Warnings": []}

    async def prune(self, wanted: Filters) -> Json:
        """Removes all that do not run."""
        filters.known(wanted, {"label", "label!", "until"})
        until = _until(wanted)
        deleted = []
        freed = 0
        for one in list(self.core.containers.values()):
            have = one.request.labels or {}
            if one.state.running or one.state.status in ("restarting", "removing"):
                continue
            if not filters.labels(have, wanted.get("label", [])):
                continue
            if any(filters.labels(have, [w]) for w in wanted.get("label!", [])):
                continue
            if until and parse_stamp(one.created) >= until:
                continue
            written = (await sizes(self.core, one))["SizeRw"]
            try:
                await self.lifecycle.remove(one, force=False, volumes=False)
            except Conflict:  # somebody has started it meanwhile
                continue
            freed += written
            deleted.append(one.id)
        return {"ContainersDeleted": deleted or None, "SpaceReclaimed": freed}

    # --- files ----------------------------------------------------------------------

    async def _files_spec(self, one: Container) -> InstanceSpec:
        rootfs = await self.core.images.rootfs(self.core.images.find(one.image_id))
        return spec.build(self.core, one, rootfs=rootfs, namespace=None, write=False)

    async def read_archive(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """docker cp out of a container. Raises NotFound."""
        one = self.core.container(ref)
        full = await self._files_spec(one)
        runtime, running = self.core.runtime(one), one.state.running
        found = await runtime.stat_path(full, path, running)
        return found, runtime.read_archive(full, path, running)

    async def write_archive(
        self,
        ref: str,
        path: str,
        tar: AsyncIterator[bytes],
        *,
        keep: bool = True,
        as_user: bool = False,
    ) -> None:
        """docker cp into a container. Raises NotFound, InvalidInput. See facade."""
        one = self.core.container(ref)
        full = await self._files_spec(one)
        runtime, running = self.core.runtime(one), one.state.running
        if as_user and one.request.user:
            passwd, group = [b"", b""]
            with contextlib.suppress(NotFound):
                passwd = await tarowner.text(runtime.read_archive(full, "/etc/passwd", running))
                group = await tarowner.text(runtime.read_archive(full, "/etc/group", running))
            owner = users.resolve(one.request.user, (), passwd, group)
            tar = tarowner.owned(tar, owner.uid, owner.gid)
        await runtime.write_archive(full, path, tar, running, keep=keep)

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """What lies at a path. Raises NotFound."""
        one = self.core.container(ref)
        full = await self._files_spec(one)
        return await self.core.runtime(one).stat_path(full, path, one.state.running)

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """docker export: the whole root as a tar. Raises NotFound."""
        one = self.core.container(ref)
        full = await self._files_spec(one)
        self.core.emit(one, "export")
        return self.core.runtime(one).read_root(full, one.state.running)

    async def changes(self, ref: str) -> Jsons | None:
        """docker diff. Raises NotFound."""
        one = self.core.container(ref)
        full = await self._files_spec(one)
        tar = self.core.runtime(one).read_changes(full, one.state.running)
        return await committing.changes(tar, full) or None

    async def commit(self, ref: str, wanted: CommitRequest) -> Json:
        """docker commit. Raises NotFound, InvalidInput."""
        one = self.core.container(ref)
        full = await self._files_spec(one)
        runtime = self.core.runtime(one)
        # where the kernel is not shared, the instance itself hands its files out
        pause = wanted.pause and one.state.status == "running"
        pause = pause and runtime.capabilities.pause and runtime.capabilities.shares_kernel
        if pause:
            try:
                await self.lifecycle.pause(one)
            except GemelError:
                if not await self._ends(one):
                    raise
                pause = False
        try:
            tar = runtime.read_changes(full, one.state.running)
            image = await committing.commit(self.core, one, tar, wanted)
        finally:
            if pause:
                with contextlib.suppress(GemelError):
                    await self.lifecycle.unpause(one)
        self.core.emit(one, "commit", comment=wanted.comment, imageID=image, imageRef=wanted.ref)
        return {"Id": image}

    async def _ends(self, one: Container) -> bool:
        """Whether an instance that could not be paused has ended meanwhile, or is about to."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                await (await self.waiter(one.id))
        return not one.state.running

    def _running(self, ref: str) -> Container:
        one = self.core.container(ref)
        if not one.state.running:
            raise Conflict(f"Container {one.id} is not running")
        return one


async def sizes(core: Core, one: Container) -> Json:
    """Bytes of the writable layer, and of it with the image."""
    written = await asyncio.to_thread(disk_use, str(core.paths.layer(one.id)))
    image = core.images.get(one.image_id)
    return {"SizeRw": written, "SizeRootFs": written + (image.size if image else 0)}


def _waited(one: Container) -> Json:
    error = {"Message": one.state.error} if one.state.error else None
    return {"StatusCode": one.state.exit_code, "Error": error}


def _until(wanted: Filters) -> float:
    values = wanted.get("until", [])
    if not values:
        return 0.0
    text = values[0]
    if text.isdigit():
        return float(text)
    units = {"s": 1, "m": 60, "h": 3600}
    if text[:-1].isdigit() and text[-1] in units:
        return time.time() - int(text[:-1]) * units[text[-1]]
    at = parse_stamp(text)
    if not at:
        raise InvalidInput(f"invalid time in the filter until={text}")
    return at
