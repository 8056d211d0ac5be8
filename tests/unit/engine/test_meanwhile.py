"""What is asked for while something else is under way: ends, starts, checks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from gemel.engine.execs import Execs
from gemel.engine.records import Container
from gemel.errors import Conflict
from gemel.model.docker import ExecCreate, HostConfig, RestartPolicy
from gemel.model.image import HealthConfig
from tests.fake.engine import FakeEngine
from tests.fake.programs import Io
from tests.fake.runtime import FakeRuntime, FakeStream

ALWAYS = HostConfig(restart_policy=RestartPolicy(name="always"))


class Gate:
    """Holds every start up before the container counts as running."""

    def __init__(self, engine: FakeEngine) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        cast(Any, engine.core.images).rootfs = self._rootfs

    async def _rootfs(self, image: str) -> Path:
        self.reached.set()
        await self.open.wait()
        return Path("/nowhere")


async def _steps() -> None:
    """Lets other tasks go as far as they can without waiting for time."""
    for _ in range(20):
        await asyncio.sleep(0)


async def _stays_ended(engine: FakeEngine, one: Container) -> None:
    await engine.until(lambda: not engine.core.live[one.id].tasks)
    assert one.state.status == "exited"
    assert one.id not in engine.world.runs


async def test_a_stop_just_after_an_end_keeps_it_from_starting_again(engine: FakeEngine) -> None:
    one = await engine.run("sleep", "1000", host=ALWAYS)
    async with engine.core.live[one.id].lock:
        engine.world.end(one.id, 1)
        await _steps()  # its end waits to be handled
        stop = asyncio.create_task(engine.lifecycle.stop(one, 0, ""))
        await _steps()
    await stop
    await _stays_ended(engine, one)


async def test_a_stop_while_the_policy_starts_it_again(engine: FakeEngine) -> None:
    one = await engine.run("sleep", "1000", host=ALWAYS)
    gate = Gate(engine)
    engine.world.end(one.id, 1)
    await gate.reached.wait()
    stop = asyncio.create_task(engine.lifecycle.stop(one, 0, ""))
    await _steps()
    gate.open.set()
    await stop
    await _stays_ended(engine, one)


async def test_a_removal_while_the_policy_starts_it_again(engine: FakeEngine) -> None:
    one = await engine.run("sleep", "1000", host=ALWAYS)
    gate = Gate(engine)
    engine.world.end(one.id, 1)
    await gate.reached.wait()
    remove = asyncio.create_task(engine.lifecycle.remove(one, force=True, volumes=False))
    await _steps()
    gate.open.set()
    await remove
    assert one.id not in engine.world.runs
    assert one.id not in engine.core.containers


async def test_what_is_being_started_is_not_removed_without_force(engine: FakeEngine) -> None:
    one = await engine.make("sleep", "1000")
    gate = Gate(engine)
    start = asyncio.create_task(engine.lifecycle.start(one))
    await gate.reached.wait()
    remove = asyncio.create_task(engine.lifecycle.remove(one, force=False, volumes=False))
    await _steps()
    gate.open.set()
    await start
    with pytest.raises(Conflict, match="container is running"):
        await remove
    assert engine.alive(one)


async def test_a_removal_of_what_has_just_ended_comes_after_its_end(engine: FakeEngine) -> None:
    told: list[str] = []
    emit = engine.core.events.emit

    def listen(kind: str, action: str, *more: Any) -> None:
        told.append(action)
        emit(kind, action, *more)

    engine.core.events.emit = listen  # type: ignore[method-assign]
    one = await engine.run("sleep", "1000")
    live = engine.core.live[one.id]
    await live.lock.acquire()
    remove = asyncio.create_task(engine.lifecycle.remove(one, force=True, volumes=False))
    await _steps()  # its kill waits, and finds nothing to kill
    engine.world.end(one.id, 3)
    await _steps()
    live.lock.release()
    await remove
    await engine.until(lambda: not live.tasks)
    assert [word for word in told if word in ("die", "destroy")] == ["die", "destroy"]


async def test_a_check_that_answers_late_does_not_speak_of_the_next_run(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def check(io: Io) -> int:
        asked.set()
        await answer.wait()
        return 0

    cleanup = FakeRuntime.cleanup

    async def slow(self: FakeRuntime, id: str) -> None:
        answer.set()
        await asyncio.sleep(0.05)
        await cleanup(self, id)

    monkeypatch.setattr(FakeRuntime, "cleanup", slow)
    engine.world.programs["check"] = check
    often = HealthConfig(test=["CMD", "check"], interval=1_000_000)
    one = await engine.run("sleep", "1000", healthcheck=often)
    await asked.wait()
    # the end of its first process ends the check too, but here it has said its word already
    monkeypatch.setattr(engine.world.runs[one.id], "execs", [])
    await engine.lifecycle.stop(one, 0, "")
    assert one.state.health == ""
    assert one.state.health_log == []


async def test_the_exit_code_of_an_exec_is_known_at_the_end_of_its_output(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = FakeStream.wait

    async def late(self: FakeStream) -> int:
        status = await wait(self)
        await asyncio.sleep(0.3)  # as where whoever collects it has no turn
        return status

    monkeypatch.setattr(FakeStream, "wait", late)
    one = await engine.run("sleep", "1000")
    execs = Execs(engine.core)
    request = ExecCreate(cmd=["sh", "-c", "echo out; exit 3"], attach_stdout=True)
    id = await execs.create(one.id, request)
    _, stream = await execs.start(id)
    found = b""
    while (piece := await stream.read()) is not None:
        found += piece[1]
    await stream.close()
    shown = await execs.inspect(id)
    assert (found, shown["Running"], shown["ExitCode"]) == (b"out\n", False, 3)
