"""Containers: crun under conmon, behind the interface that every runtime has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal as signals
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from gemel.errors import Conflict, Failed, GemelError, InvalidInput, NotFound, Unavailable
from gemel.host import files, mounts, pipes, ptrace
from gemel.host.procs import Handle
from gemel.model.instance import (
    Capabilities,
    Exit,
    InstanceSpec,
    Process,
    Resources,
    RuntimeName,
    Toolbox,
    Usage,
)
from gemel.model.paths import Paths
from gemel.runtime.container import (
    bundle,
    debugging,
    execs,
    facts,
    monitor,
    roots,
    top,
    views,
)
from gemel.runtime.container.cgroup import Cgroups
from gemel.runtime.container.copies import Copies
from gemel.runtime.container.crun import Crun, Filters
from gemel.runtime.container.monitor import Files, Record
from gemel.runtime.container.streams import AttachStream, resize

log = logging.getLogger("gemel.container")

#: Seconds that conmon is given to end after its container has been killed.
MONITOR_TIMEOUT = 10.0


class _Live:
    """A container that was started or taken up, until ``cleanup``."""

    def __init__(self, paths: Files, record: Record) -> None:
        self.paths = paths
        self.record = record
        self.monitor = monitor.handle(record.conmon, record.conmon_started)
        self.process = monitor.handle(record.pid, record.started)
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.kept: list[int] = []
        """Connections whose standard input is to stay open."""

    @property
    def running(self) -> bool:
        return not self.exit.done()

    def let_go(self) -> None:
        for handle in (self.monitor, self.process):
            if isinstance(handle, Handle):
                handle.close()
        pipes.close(*self.kept)
        self.kept.clear()


class ContainerRuntime(Copies):
    """``Runtime`` with crun and conmon. One for each engine."""

    name = RuntimeName.CONTAINER
    capabilities = Capabilities(
        host_network=True,
        shared_namespaces=True,
        devices=True,
        live_update=True,
        privileged=True,
        pause=True,
        shares_kernel=True,
        debug=True,
    )

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._crun = Crun(paths.run / "crun")
        self._live: dict[str, _Live] = {}
        self._starting: set[str] = set()
        self._waiting: dict[str, list[AttachStream]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._views = views.Views(paths)
        self._debugging = debugging.Debugging(paths, self._crun, self._views, self._own)
        self._profiles = facts.Profiles()
        self._filters = Filters()
        self._cgroups = Cgroups()
        self._host: bundle.Host | None = None

    # -- the engine's life --------------------------------------------------------------

    async def prepare(self) -> None:
        facts.check_tools()
        self._cgroups = Cgroups()
        self._host = facts.host(self._cgroups)
        self._profiles.get("default")
        files.folder(self._crun.state)
        instances = files.folder(self._paths.run / "instances")
        await self._debugging.sweep(self._cgroups)
        await asyncio.to_thread(self._views.sweep)
        for id in [entry.name for entry in instances.iterdir()]:
            if self._half_made(id):
                async with self._lock(id):
                    await self._clean(id)

    def _half_made(self, id: str) -> bool:
        """Whether an engine died while it was starting this container."""
        paths = self._files(id)
        made = paths.rootfs.is_dir() or paths.conmon_pid.exists()
        return made and (monitor.load(paths) is None or self._crun.waits(id))

    async def close(self) -> None:
        await self._debugging.close(self._cgroups)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for live in self._live.values():
            live.let_go()
        self._live.clear()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a watcher failed", exc_info=task.exception())

    # -- an instance's life -------------------------------------------------------------

    async def create(self, spec: InstanceSpec) -> None:
        await asyncio.to_thread(roots.make_layer, spec)

    async def start(self, spec: InstanceSpec) -> int:
        async with self._lock(spec.id):
            if (live := self._live.get(spec.id)) is not None and live.running:
                raise Conflict(f"{spec.name} is running already")
            # what an earlier run of it left, or one that was not cleaned up
            await self._clean(spec.id)
            self._starting.add(spec.id)
            # whoever asks may give up, but conmon cannot be stopped between two steps
            work = asyncio.create_task(self._start(spec))
            try:
                return await asyncio.shield(work)
            except BaseException as error:
                await asyncio.wait([work])
                if not work.cancelled():
                    work.exception()  # the one who asked has gone; it has been seen
                for stream in self._waiting.pop(spec.id, []):
                    stream.abandon()
                self._starting.discard(spec.id)
                await asyncio.shield(self._clean(spec.id))
                if isinstance(error, OSError):
                    raise Failed(f"cannot start {spec.name}", details=str(error)) from error
                raise
            finally:
                self._starting.discard(spec.id)

    async def _start(self, spec: InstanceSpec) -> int:
        paths = self._files(spec.id)
        fresh = await asyncio.to_thread(self._make_bundle, spec, paths)
        record = await monitor.create(spec, paths, self._crun)
        if fresh is not None:
            self._filters.learn(fresh, self._crun.state / spec.id)
        live = _Live(paths, record)
        self._live[spec.id] = live
        self._own(self._watch(spec.id, live))
        for stream in self._waiting.pop(spec.id, []):
            stream.connect(paths.run, stdin=spec.process.stdin, tty=spec.process.tty)
        if not spec.halted:
            await self._crun.start(spec.id)
            return record.pid
        trap = await asyncio.to_thread(ptrace.ExecTrap, record.pid)
        await self._crun.start(spec.id)
        await asyncio.to_thread(trap.wait)
        return record.pid

    def _make_bundle(self, spec: InstanceSpec, paths: Files) -> bytes | None:
        """Folder, mount, configuration: all that conmon and crun need to find.

        Gives back the key of a system-call filter that has yet to be compiled.
        """
        host = self._known_host()
        if spec.init and not host.init:
            raise Unavailable("no init program is installed", resolution="apt-get install tini")
        if not spec.process.argv:
            raise InvalidInput("no command specified", f"{spec.name} and its image name none")
        profile = self._profiles.get(spec.security.seccomp)
        files.folder(paths.run)
        roots.mount(spec, paths.rootfs)
        roots.own_files(spec)
        if not any(mount.target == spec.process.cwd for mount in spec.mounts):
            roots.make_cwd(paths.rootfs, spec.process.cwd or "/")
        config = bundle.config(
            spec,
            rootfs=paths.rootfs,
            shm=self._make_shm(spec, paths),
            cgroup=self._group(spec.id),
            identity=roots.identity(paths.rootfs, spec.process.user, spec.process.groups),
            host=host,
            profile=profile,
            devices=roots.device_nodes(spec),
        )
        fresh = self._filters.apply(config)
        files.write(paths.config, msgspec.json.encode(config))
        return fresh

    def _make_shm(self, spec: InstanceSpec, paths: Files) -> Path | None:
        """What the container sees at /dev/shm: the host's, that of the one whose ipc it

        joins, or a tmpfs of its own. The host holds it, so that another can join it later.
        """
        if spec.ipc_mode == "host":
            return Path("/dev/shm")
        if spec.ipc_mode.startswith("/"):
            for live in self._live.values():
                if spec.ipc_mode == f"/proc/{live.record.pid}/ns/ipc":
                    return live.paths.shm
            return None
        if any(mount.target == "/dev/shm" for mount in spec.mounts):
            return None
        roots.mount_shm(paths.shm, spec.resources.shm_size)
        return paths.shm

    async def adopt(self, spec: InstanceSpec) -> bool:
        async with self._lock(spec.id):
            if (known := self._live.get(spec.id)) is not None:
                return known.running
            paths = self._files(spec.id)
            record = monitor.load(paths)
            if record is None:
                return False
            live = _Live(paths, record)
            if live.monitor is None:
                live.let_go()
                return False
            self._live[spec.id] = live
            self._own(self._watch(spec.id, live))
            return True

    async def wait(self, id: str) -> Exit:
        if (live := self._live.get(id)) is not None:
            return await asyncio.shield(live.exit)
        paths = self._files(id)
        if not paths.run.is_dir():
            raise NotFound(f"{id[:12]} was not started")
        return self._exit(paths, id)

    async def _watch(self, id: str, live: _Live) -> None:
        """Waits for the end of conmon, by when everything is in the log and the exit file."""
        if live.monitor is not None:
            await live.monitor.ended()
        ended = self._exit(live.paths, id)
        if ended.error:
            # conmon was killed: nobody holds the container's output any more
            with contextlib.suppress(GemelError):
                await self._crun.call("kill", "--all", id, "KILL", check=False)
        live.let_go()
        if not live.exit.done():
            live.exit.set_result(ended)

    def _exit(self, paths: Files, id: str) -> Exit:
        oom = self._cgroups.oom_kills(self._group(id)) > 0
        found = monitor.exit_status(paths)
        if found is None:
            return Exit(
                status=137,
                finished_at=paths.run.stat().st_mtime if paths.run.is_dir() else 0.0,
                oom=oom,
                error="its monitor (conmon) was killed, or the machine was restarted",
            )
        return Exit(status=found[0], finished_at=found[1], oom=oom)

    async def cleanup(self, id: str) -> None:
        async with self._lock(id):
            await self._clean(id)
        if id in self._locks and not self._locks[id].locked():
            del self._locks[id]

    async def _clean(self, id: str) -> None:
        """Removes everything of a run that is there, in an order that can be begun again."""
        paths = self._files(id)
        live = self._live.get(id)
        if not paths.run.is_dir() and live is None and not self._crun.known(id):
            return
        if live is None and monitor.load(paths) is None:
            await monitor.abort(paths)
        await self._crun.delete(id)
        await self._end_monitor(paths, live)
        self._live.pop(id, None)
        if live is not None and not live.exit.done():
            live.exit.set_result(self._exit(paths, id))
        await asyncio.to_thread(self._remove_run, paths, id)

    async def _end_monitor(self, paths: Files, live: _Live | None) -> None:
        """Waits for conmon, which ends by itself, and ends it if it does not."""
        if live is not None:
            try:
                async with asyncio.timeout(MONITOR_TIMEOUT):
                    await asyncio.shield(live.exit)
            except TimeoutError:
                if live.monitor is not None:
                    live.monitor.send(signals.SIGKILL)
            return
        record = monitor.load(paths)
        if record is None or (left := monitor.handle(record.conmon, record.conmon_started)) is None:
            return
        try:
            async with asyncio.timeout(MONITOR_TIMEOUT):
                await left.ended()
        except TimeoutError:
            left.send(signals.SIGKILL)
        finally:
            left.close()

    def _remove_run(self, paths: Files, id: str) -> None:
        for place in (paths.rootfs, paths.shm):
            mounts.unmount(place)
            if place.is_dir():
                # never recursively: were it still mounted, that would empty the layer
                place.rmdir()
        self._cgroups.remove(self._group(id))
        files.remove(paths.run)
        if not self._live and not self._starting:
            self._cgroups.remove_empty(f"/{self._paths.cgroup}")

    async def remove(self, spec: InstanceSpec) -> None:
        async with self._lock(spec.id):
            for stream in self._waiting.pop(spec.id, []):
                stream.abandon()
            await asyncio.to_thread(files.remove, spec.layer)

    # -- while it runs ------------------------------------------------------------------

    def healthy(self, id: str) -> None:
        """Does nothing: a container starts in no time."""

    def boot(self, id: str) -> tuple[str, str]:
        """Empty: nothing boots."""
        return "", ""

    async def kill(self, id: str, signal: int) -> None:
        live = self._running(id)
        if live.process is None:
            raise Conflict(f"container {id[:12]} is not running")
        try:
            live.process.send(signal)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"invalid signal: {signal}", details=str(error)) from error
        if signal == signals.SIGKILL:
            for pid in self._cgroups.members(self._group(id)):
                # with the host's pid namespace the others do not end with the first
                if (other := monitor.handle(pid, 0)) is not None:
                    other.send(signal)
                    other.close()
            if self._cgroups.frozen(self._group(id)):
                await self.resume(id)  # version 1 delivers no signal to the frozen

    async def pause(self, id: str) -> None:
        self._running(id)
        await self._crun.call("pause", id)

    async def resume(self, id: str) -> None:
        self._running(id)
        await self._crun.call("resume", id)

    async def attach(self, id: str) -> AttachStream:
        """Before the start too: it is connected when the container is there and not yet running."""
        paths = self._files(id)
        stream = AttachStream(paths.control, lambda fd: self._keep(id, fd))
        live = self._live.get(id)
        if live is not None and live.running:
            stream.connect(paths.run, stdin=live.record.stdin, tty=live.record.tty)
        else:
            self._waiting.setdefault(id, []).append(stream)
        return stream

    def _keep(self, id: str, fd: int) -> None:
        live = self._live.get(id)
        if live is not None and live.running:
            live.kept.append(fd)
        else:
            pipes.close(fd)

    async def exec(self, id: str, process: Process) -> execs.Session:
        live = self._running(id)
        if not process.argv:
            raise InvalidInput("No exec command specified")
        first = msgspec.json.decode(live.paths.config.read_bytes())
        wanted = await asyncio.to_thread(self._exec_process, live, process, first)
        return await execs.start(
            self._crun, id, wanted, live.paths.run, stdin=process.stdin, own=self._own
        )

    def _exec_process(self, live: _Live, process: Process, first: dict[str, Any]) -> dict[str, Any]:
        """OCI's process, with what it has in common with the first one of the container."""
        own = first["process"]
        caps = own["capabilities"]["bounding"]
        if process.privileged:
            caps = list(self._known_host().capabilities)
        try:
            who = roots.identity(f"/proc/{live.record.pid}/root", process.user, process.groups)
        except FileNotFoundError:
            raise Conflict("the container is not running") from None
        made = bundle.process(
            process,
            who,
            caps=caps,
            hostname=first.get("hostname", ""),
            no_new_privileges=own["noNewPrivileges"] and not process.privileged,
        )
        made["rlimits"] = own.get("rlimits", [])
        if "oomScoreAdj" in own:
            made["oomScoreAdj"] = own["oomScoreAdj"]
        return made

    async def debug(
        self, spec: InstanceSpec, toolbox: Toolbox, process: Process, running: bool
    ) -> execs.Session:
        pid = self._running(spec.id).record.pid if running else None
        return await self._debugging.start(
            spec, toolbox, process, pid, self._known_host(), self._cgroups
        )

    async def resize(self, id: str, rows: int, columns: int) -> None:
        live = self._running(id)
        if live.record.tty:
            resize(live.paths.control, rows, columns)

    async def usage(self, id: str) -> Usage:
        """Of one that has ended too, until it is cleaned up."""
        if id not in self._live:
            self._running(id)
        return self._cgroups.usage(self._group(id))

    async def processes(self, id: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        self._running(id)
        return await top.processes(self._cgroups.members(self._group(id)), ps_args)

    async def update(self, id: str, resources: Resources) -> None:
        live = self._running(id)
        request = live.paths.run / "resources.json"
        limits = bundle.limits(resources, self._known_host())
        files.write(request, msgspec.json.encode(limits))
        await self._crun.call("update", "--resources", str(request), id)

    def _view(self, spec: InstanceSpec) -> contextlib.AbstractAsyncContextManager[Path]:
        """The root as the container sees it, running or not."""
        live = self._live.get(spec.id)
        if live is not None and live.running:
            return views.of_process(live.record.pid)
        return self._views.open(spec)

    # -- helpers ------------------------------------------------------------------------

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    def _files(self, id: str) -> Files:
        return Files(self._paths.instance_run(id), id)

    def _group(self, id: str) -> str:
        return f"/{self._paths.cgroup}/{id}"

    def _known_host(self) -> bundle.Host:
        if self._host is None:
            raise Unavailable("the container runtime is not ready", "prepare() was not called")
        return self._host

    def _running(self, id: str) -> _Live:
        live = self._live.get(id)
        if live is None or not live.running:
            raise Conflict(f"container {id[:12]} is not running")
        return live
