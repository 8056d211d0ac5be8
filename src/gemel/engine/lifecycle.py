"""Starting, ending, restarting and adopting containers.

A start that fails half-way is taken back step by step (AsyncExitStack); an end
is handled by one task for each running container, which then follows the
restart policy (Docker: restart-policy; backoff 100 ms doubling up to 60 s,
begun anew after 10 s of running).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from gemel.engine import health, hooks, spec
from gemel.engine.core import Core, Live, Once, log
from gemel.engine.endpoints import check_fixed
from gemel.engine.ports import choose_ports, held
from gemel.engine.records import Container, now, parse_stamp, stamp
from gemel.engine.resolve import signal_number
from gemel.errors import (
    CommandNotFound,
    CommandNotRunnable,
    Conflict,
    GemelError,
    NotFound,
    NotModified,
    Unsupported,
)
from gemel.model.docker import HostConfig, RestartPolicy
from gemel.model.instance import Exit, InstanceSpec

BACKOFF = 0.1
BACKOFF_MAX = 60.0
STEADY = 10.0
"""Seconds after which a start counts as good and the backoff begins anew."""
LOST = "nothing is left of its run: the machine was restarted, or the engine killed at its end"
KILL_WAIT = 40.0
"""Seconds in which a killed instance must be gone."""
REMOVE_TRIES = 5
"""How often what is to be removed is ended: somebody may start it again."""
_ALIVE = ("running", "paused", "restarting")


class Lifecycle:
    """What happens to a container over time."""

    def __init__(self, core: Core) -> None:
        self.core = core

    # --- start --------------------------------------------------------------------

    async def start(self, one: Container, *, held: bool = False, once: Once | None = None) -> None:
        """Starts a container. Raises NotModified if it runs already, Failed if a hook fails.

        held: without published ports, and not under names that others share (see handover).
        once: how this start differs from what is kept.
        """
        async with self.core.locked(one) as live:
            if one.state.running:
                raise NotModified(f"container {one.name} is running already")
            if one.state.status == "removing":
                raise Conflict(f"container {one.name} is being removed")
            one.state.restarts = 0
            one.state.stopped_by_user = False
            one.state.held = held
            live.stopping = False
            live.once = once or Once()
            try:
                await self._start(one, live)
            except GemelError:
                if (one.request.host_config or HostConfig()).auto_remove:
                    self.core.spawn(one, self._remove_failed(one), "removing what never started")
                raise
        if once is None or not once.halted:
            await hooks.run(self.core, one, hooks.POST_START)

    async def _remove_failed(self, one: Container) -> None:
        """`docker run --rm` waits for the removal also when the start has failed."""
        with contextlib.suppress(GemelError):
            await self.remove(one, force=True, volumes=True)

    async def _start(self, one: Container, live: Live) -> None:
        before = one.state.status
        try:
            await self._bring_up(one, live)
        except BaseException as error:
            one.state.status = before if before == "created" else "exited"
            if isinstance(error, GemelError):
                one.state.error = error.brief
                one.state.exit_code = _start_status(error)
                one.state.finished_at = now()
            await self.core.save(one)
            live.settled.set()
            live.stopped()
            raise
        one.state.error = ""
        await self.core.save(one)
        self.core.emit(one, "start")
        self._watch(one)
        if self.core.witness is not None:
            self.core.witness.started(one)

    async def _bring_up(self, one: Container, live: Live) -> None:
        core = self.core
        runtime = core.runtime(one)
        spec.check_capabilities(core, one)
        check_fixed(core, one)
        async with contextlib.AsyncExitStack() as undo:
            rootfs = await core.images.rootfs(core.images.find(one.image_id))
            for point in one.mounts:
                if point.kind == "image":  # else its mount may be gone since the last boot
                    await core.images.rootfs(core.images.find(point.name))
            namespace = await self._connect(one, undo)
            one.bindings = []
            if not one.state.held:
                await choose_ports(core, one, undo)
            full = spec.build(core, one, rootfs=rootfs, namespace=namespace, write=True)
            full = spec.once(full, live.once)
            live.once = Once()
            one.state.status = "running"  # so that names and ports count it from now on
            core.network_changed()
            undo.callback(setattr, one.state, "status", "exited")
            undo.push_async_callback(self._forget_names, one)
            live.ended.clear()
            live.upcoming()
            undo.callback(live.ended.set)
            await runtime.create(full)
            await core.observed()
            one.state.started_at = now()
            one.state.health = "starting" if health.wanted(one) else ""
            one.state.failing_streak = 0
            work = [runtime.start(full), core.sync_names()]
            if one.bindings:
                work.append(core.sync_ports())
            pid = await _all(*work)
            one.state.pid = pid if isinstance(pid, int) else 0
            one.state.started_at = now()
            one.state.exit_code = 0
            one.state.oom = False
            live.started = time.monotonic()
            live.settled.clear()
            live.begun.set()
            undo.pop_all()

    async def _forget_names(self, one: Container) -> None:
        one.state.status = "exited"
        with contextlib.suppress(GemelError):
            await self.core.sync_names()
        if one.bindings:
            with contextlib.suppress(GemelError):
                await self.core.sync_ports()

    async def _connect(self, one: Container, undo: contextlib.AsyncExitStack) -> Path | None:
        """The instance's network namespace (containers), with its interfaces in it."""
        core = self.core
        mode = (one.request.host_config or HostConfig()).network_mode
        if mode == "host" or mode.startswith("container:"):
            return None
        namespace: Path | None = None
        if core.runtime(one).capabilities.shares_kernel:
            namespace = await core.net.open_namespace(one.id)
            undo.push_async_callback(core.net.close_namespace, one.id)
        for interface in spec.interfaces(core, one):
            undo.push_async_callback(core.net.disconnect, one.id, namespace, interface)
            await core.net.connect(one.id, namespace, interface)
        return namespace

    # --- end ----------------------------------------------------------------------

    def _watch(self, one: Container) -> None:
        self.core.rotation.begin(one)
        self.core.spawn(one, self._until_end(one), "watching")
        if health.wanted(one):
            self.core.spawn(one, health.keep(self.core, one, self._sick), "health checks")

    async def _sick(self, one: Container) -> None:
        """Ends an unhealthy container so that it is started again, whatever its policy says."""
        async with self.core.locked(one) as live:
            if one.state.status != "running" or live.stopping or live.debugged:
                return
            live.again = True
            log.warning("%s is unhealthy and is started again", one.name)
            with contextlib.suppress(Conflict):
                number = signal_number(one.request.stop_signal)
                await self.core.runtime(one).kill(one.id, number)
        seconds = 10 if one.request.stop_timeout is None else one.request.stop_timeout
        if not await _within(live.ended, None if seconds < 0 else seconds):
            await self._kill_hard(one, live)

    async def _until_end(self, one: Container) -> None:
        try:
            exit = await self.core.runtime(one).wait(one.id)
        except NotFound:  # taken up, and what its end would have left is gone
            exit = Exit(status=137, finished_at=time.time(), error=LOST)
        live = self.core.live[one.id]
        async with live.lock:
            await self._ended(one, live, exit)
        if one.state.status == "restarting":
            await self._restart_later(one, live)
        elif (one.request.host_config or HostConfig()).auto_remove:
            await self.remove(one, force=True, volumes=True)

    async def _ended(self, one: Container, live: Live, exit: Exit) -> None:
        state = one.state
        state.pid = 0
        state.exit_code = exit.status
        state.oom = exit.oom
        state.error = exit.error
        state.finished_at = stamp(int(exit.finished_at * 1e9))
        asked = live.stopping or live.again
        again = not live.stopping and (live.again or self._again(one, exit))
        live.again = False
        state.status = "restarting" if again else "exited"
        if self.core.witness is not None:
            await self.core.witness.ended(one, exit, asked)
        state.health = ""
        await self._release(one)
        live.stopped()
        for future in live.exits:
            if not future.done():
                future.set_result(exit.status)
        live.exits.clear()
        if exit.oom:
            self.core.emit(one, "oom")
        self.core.emit(one, "die", exitCode=exit.status)
        if not again:
            live.settled.set()
        await self.core.save(one)

    async def _release(self, one: Container) -> None:
        """Takes the network, ports and run files back. Goes on over what fails, and says it."""
        core = self.core
        mode = (one.request.host_config or HostConfig()).network_mode
        own = not (mode == "host" or mode.startswith("container:"))
        steps = [core.runtime(one).cleanup(one.id), core.sync_names()]
        if one.bindings:
            steps.append(core.sync_ports())
        for done in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(done, BaseException):
                log.warning("cleaning up after %s: %s", one.name, done)
        await held.release(core, one)
        if not own:
            return
        try:
            if core.runtime(one).capabilities.shares_kernel:
                await core.net.close_namespace(one.id)
            else:
                for interface in spec.interfaces(core, one):
                    await core.net.disconnect(one.id, None, interface)
        except GemelError as error:
            log.warning("network of %s: %s", one.name, error)

    def _again(self, one: Container, exit: Exit) -> bool:
        policy = (one.request.host_config or HostConfig()).restart_policy or RestartPolicy()
        if policy.name in ("always", "unless-stopped"):
            return True
        if policy.name != "on-failure" or exit.status == 0:
            return False
        return policy.maximum_retry_count == 0 or one.state.restarts < policy.maximum_retry_count

    async def _restart_later(self, one: Container, live: Live) -> None:
        if live.started and time.monotonic() - live.started >= STEADY:
            one.state.restarts = 0
        delay = min(BACKOFF_MAX, BACKOFF * 2 ** min(one.state.restarts, 10))
        await asyncio.sleep(delay)
        async with live.lock:
            if one.state.status != "restarting" or live.stopping:
                return
            one.state.restarts += 1
            try:
                await self._start(one, live)
            except GemelError as error:
                log.warning("restart of %s: %s", one.name, error)
                if self._again(one, Exit(status=_start_status(error), finished_at=time.time())):
                    one.state.status = "restarting"
                    live.settled.clear()
                    await self.core.save(one)
                    self.core.spawn(one, self._restart_later(one, live), "restarting")

    # --- stop, kill, remove ---------------------------------------------------------

    async def stop(self, one: Container, timeout: int | None, signal: str) -> None:
        """Signal, wait, kill. Raises NotModified if it does not run."""
        if await self._give_up_restart(one):
            return
        if one.state.status == "running":
            try:
                await hooks.run(self.core, one, hooks.PRE_STOP)
            except GemelError as error:  # it was asked to stop, and does
                log.warning("%s: %s", error.brief, error.details)
        runtime = self.core.runtime(one)
        seconds = timeout if timeout is not None else one.request.stop_timeout
        seconds = 10 if seconds is None else seconds
        number = signal_number(signal or one.request.stop_signal)
        # under the lock: a start that is under way is waited for
        async with self.core.locked(one) as live:
            if await self._stay_ended(one, live):  # it has just ended by itself
                return
            if not one.state.running:
                raise NotModified(f"container {one.name} is not running")
            live.stopping = True
            one.state.stopped_by_user = True
            await self._thaw(one)
            self.core.emit(one, "kill", signal=number)
            with contextlib.suppress(Conflict):
                await runtime.kill(one.id, number)
        if not await _within(live.ended, None if seconds < 0 else seconds):
            await self._kill_hard(one, live)
        self.core.emit(one, "stop")

    async def _give_up_restart(self, one: Container) -> bool:
        """Has what is between two runs stay ended; whether that was so."""
        if one.state.status != "restarting":
            return False
        async with self.core.locked(one) as live:  # a start that is under way is waited for
            return await self._stay_ended(one, live)

    async def _stay_ended(self, one: Container, live: Live) -> bool:
        if one.state.status != "restarting":
            return False
        live.stopping = True
        one.state.stopped_by_user = True
        one.state.status = "exited"
        live.settled.set()
        await self.core.save(one)
        self.core.emit(one, "stop")
        return True

    async def _kill_hard(self, one: Container, live: Live) -> None:
        self.core.emit(one, "kill", signal=9)
        with contextlib.suppress(Conflict):
            await self.core.runtime(one).kill(one.id, 9)
        if not await _within(live.ended, KILL_WAIT):
            raise Conflict(
                f"container {one.name} does not end",
                details=f"it was killed and is still there after {KILL_WAIT:g} s",
            )

    async def kill(self, one: Container, signal: str) -> None:
        """Sends a signal. Raises Conflict if it does not run."""
        number = signal_number(signal, default=9)
        async with self.core.locked(one) as live:
            if not one.state.running:
                raise Conflict(f"Cannot kill container: {one.name}: container is not running")
            if number == 9:
                live.stopping = True
                one.state.stopped_by_user = True
                await self._thaw(one)
            await self.core.runtime(one).kill(one.id, number)
            self.core.emit(one, "kill", signal=number)
        if number == 9 and not await _within(live.ended, KILL_WAIT):
            raise Conflict(f"container {one.name} does not end after SIGKILL")

    async def _thaw(self, one: Container) -> None:
        """Ends a pause before a signal, which a frozen process would not get."""
        if one.state.status == "paused":
            await self.core.runtime(one).resume(one.id)
            one.state.status = "running"

    async def restart(self, one: Container, timeout: int | None, signal: str) -> None:
        """Stop (if it runs) and start."""
        with contextlib.suppress(NotModified):
            await self.stop(one, timeout, signal)
        with contextlib.suppress(NotModified):
            await self.start(one)
        self.core.emit(one, "restart")

    async def pause(self, one: Container) -> None:
        """Freezes it. Raises Conflict if it does not run or is paused already."""
        async with self.core.locked(one):
            if one.state.status == "paused":
                raise Conflict(f"Container {one.name} is already paused")
            if one.state.status != "running":
                raise Conflict(f"Container {one.name} is not running")
            if not self.core.runtime(one).capabilities.pause:
                raise Unsupported(f"a {one.runtime.value} cannot be paused")
            await self.core.runtime(one).pause(one.id)
            one.state.status = "paused"
            await self.core.save(one)
        self.core.emit(one, "pause")

    async def unpause(self, one: Container) -> None:
        """Ends a pause. Raises Conflict if it is not paused."""
        async with self.core.locked(one):
            if one.state.status != "paused":
                raise Conflict(f"Container {one.name} is not paused")
            await self.core.runtime(one).resume(one.id)
            one.state.status = "running"
            await self.core.save(one)
        self.core.emit(one, "unpause")

    async def remove(self, one: Container, *, force: bool, volumes: bool) -> None:
        """Removes it, running ones with force only. Raises Conflict."""
        core = self.core
        live = core.live[one.id]
        for _ in range(REMOVE_TRIES):
            if one.state.status in _ALIVE and force:
                await self._end(one, live)
            async with live.lock:
                if one.id not in core.containers:
                    return
                if one.state.status not in _ALIVE:
                    await self._remove(one)
                    break
                # somebody has started it meanwhile
            if not force:
                break
        if one.id in core.containers:
            raise Conflict(
                f"cannot remove container {one.name!r}: container is {one.state.status}: "
                "stop the container before removing or force remove"
            )
        try:
            if volumes:
                await self._remove_anonymous(one)
        finally:
            self._removed(one, live)

    async def _end(self, one: Container, live: Live) -> None:
        """Whatever it does, it does not run. Raises Conflict."""
        with contextlib.suppress(Conflict, NotFound):
            if not await self._give_up_restart(one):
                await self.kill(one, "KILL")
        # also one that ended by itself, which is not yet told
        if one.state.running and not await _within(live.ended, KILL_WAIT):
            raise Conflict(f"container {one.name} does not end after SIGKILL")

    async def _remove(self, one: Container) -> None:
        core = self.core
        one.state.status = "removing"
        full = spec.build(core, one, rootfs=None, namespace=None, write=False)
        await core.runtime(one).remove(full)
        # the folder first: a crash between the two leaves a record that is removed again
        await _remove_folder(core.paths.instance(one.id))
        await core.store.delete("container", [one.id])
        del core.containers[one.id]

    def _removed(self, one: Container, live: Live) -> None:
        """Tells those who wait for it."""
        self.core.emit(one, "destroy")
        live.settled.set()
        live.stopped()
        live.gone.set()
        for future in live.exits:
            if not future.done():
                future.set_result(one.state.exit_code)

    async def _remove_anonymous(self, one: Container) -> None:
        from gemel.engine.volumes import delete

        for point in one.mounts:
            if point.anonymous and point.name in self.core.volumes:
                used = any(
                    other.name == point.name
                    for c in self.core.containers.values()
                    for other in c.mounts
                )
                if not used:
                    await delete(self.core, self.core.volumes[point.name])

    # --- after a start of the engine ---------------------------------------------------

    async def adopt(self, one: Container) -> None:
        """Takes up a container of an earlier engine: still running, ended, or to be started."""
        live = self.core.live[one.id]
        state = one.state
        if state.status in ("running", "paused"):
            full = self._adopted_spec(one)
            live.ended.clear()
            live.begun.set()
            live.settled.clear()
            live.started = time.monotonic() - max(0.0, time.time() - parse_stamp(state.started_at))
            alive = await self.core.runtime(one).adopt(full)
            if alive:
                await held.take(self.core, one)
            self._watch(one)
        elif state.status == "restarting":
            live.settled.clear()
            self.core.spawn(one, self._restart_later(one, live), "restarting")
        elif state.status == "removing":
            await self.remove(one, force=True, volumes=False)

    def _adopted_spec(self, one: Container) -> InstanceSpec:
        core = self.core
        namespace = core.paths.netns(one.id)
        full = spec.build(
            core, one, rootfs=None, namespace=namespace if namespace.exists() else None, write=False
        )
        return full


async def _remove_folder(path: Path) -> None:
    from gemel.host import files

    await asyncio.to_thread(files.remove, path)


async def _all(first: object, *rest: object) -> object:
    """Awaits all; the first error is raised once every one has ended."""
    done = await asyncio.gather(first, *rest, return_exceptions=True)  # type: ignore[call-overload]
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return done[0]


async def _within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _start_status(error: BaseException) -> int:
    if isinstance(error, CommandNotFound):
        return 127
    return 126 if isinstance(error, CommandNotRunnable) else 128
