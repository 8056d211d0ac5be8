"""Starts, ends, restarts, health and adoption, over the fake runtime."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gemel.engine import health, lifecycle
from gemel.engine.records import Container
from gemel.engine.reporting import reports
from gemel.errors import CommandNotFound, Conflict, Failed, NotModified
from gemel.model.docker import HostConfig, RestartPolicy
from gemel.model.image import HealthConfig
from gemel.observe.capture.records import Snapshot
from gemel.observe.traffic import Traffic
from gemel.runtime.base import Runtime
from tests.fake.engine import FakeEngine
from tests.fake.programs import Io
from tests.fake.runtime import FakeRuntime, World

MILLISECOND = 1_000_000


def policy(name: str, most: int = 0) -> HostConfig:
    return HostConfig(restart_policy=RestartPolicy(name=name, maximum_retry_count=most))


def test_the_fake_offers_what_a_runtime_must() -> None:
    assert {name for name in dir(Runtime) if not name.startswith("_")} <= set(dir(FakeRuntime))


async def test_an_end_is_kept(engine: FakeEngine) -> None:
    one = await engine.run("sh", "-c", "exit 3")
    await engine.until(lambda: one.state.status == "exited")
    assert (one.state.exit_code, one.state.pid, one.state.oom) == (3, 0, False)
    await engine.until(lambda: not engine.network.namespaces)
    killed = await engine.run("sleep", "1000")
    engine.world.end(killed.id, 137, oom=True)
    await engine.until(lambda: killed.state.status == "exited")
    assert killed.state.oom
    with pytest.raises(NotModified):
        await engine.lifecycle.stop(one, None, "")


async def test_a_report_that_takes_long_comes_later(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not hold the end up, and is not lost."""
    monkeypatch.setattr(reports, "PATIENCE", 0.001)
    busy, read_log = asyncio.Event(), reports.Reports._log

    async def slowly(self: reports.Reports, one: Container) -> bytes:
        await busy.wait()
        return await read_log(self, one)

    monkeypatch.setattr(reports.Reports, "_log", slowly)
    traffic = Traffic(engine.paths.run, Snapshot)
    engine.core.witness = witness = reports.Reports(engine.core, traffic)
    one = await engine.run("sh", "-c", "echo last words; exit 3")
    async with asyncio.timeout(60):
        await engine.core.live[one.id].settled.wait()
    assert await witness.list() == []
    busy.set()
    async with asyncio.timeout(60):
        while not (found := await witness.list()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert (found[0]["Name"], found[0]["Kind"]) == (one.name, "exit")


async def test_on_failure_gives_up_after_its_tries(engine: FakeEngine) -> None:
    one = await engine.run("sh", "-c", "echo once; exit 1", host=policy("on-failure", 2))
    await engine.until(lambda: one.state.status == "exited" and one.state.restarts == 2)
    log = (engine.paths.instance(one.id) / "log").read_text()
    assert log.count("once") == 3
    fine = await engine.run("true", host=policy("on-failure"))
    await engine.until(lambda: fine.state.status == "exited")
    assert fine.state.restarts == 0


async def test_always_comes_back_unless_its_user_stopped_it(engine: FakeEngine) -> None:
    one = await engine.run("sleep", "1000", host=policy("always"))
    for times in (1, 2, 3):
        engine.world.end(one.id, 0)
        await engine.until(lambda n=times: one.state.restarts == n and engine.alive(one))
    await engine.lifecycle.stop(one, 0, "")
    live = engine.core.live[one.id]
    assert one.state.status == "exited" and live.settled.is_set()
    assert one.state.stopped_by_user


async def test_the_backoff_doubles(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float, *rest: Any) -> None:
        if lifecycle.BACKOFF <= seconds != 0.005:
            slept.append(seconds)
        await real(0)

    monkeypatch.setattr(lifecycle.asyncio, "sleep", sleep)
    monkeypatch.setattr(lifecycle, "BACKOFF", 0.1)
    one = await engine.run("false", host=policy("on-failure", 5))
    await engine.until(lambda: one.state.status == "exited" and one.state.restarts == 5)
    assert slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])


async def test_a_start_that_fails_leaves_its_reason(engine: FakeEngine) -> None:
    one = await engine.make("nothing-like-it")
    with pytest.raises(CommandNotFound):
        await engine.lifecycle.start(one)
    assert (one.state.status, one.state.exit_code) == ("created", 127)
    assert "executable file not found" in one.state.error
    assert not engine.network.namespaces and not engine.core.live[one.id].tasks
    # a restart that fails is tried again
    again = await engine.run("sleep", "1000", host=policy("always"))
    engine.world.failures += [Failed("no room"), Failed("no room")]
    engine.world.end(again.id, 1)
    await engine.until(lambda: engine.alive(again) and again.state.restarts == 3)
    assert not engine.world.failures


async def test_what_does_not_heed_its_stop_signal_is_killed(engine: FakeEngine) -> None:
    one = await engine.run("sleep", "1000")  # the first process, and it handles no signal
    await engine.lifecycle.stop(one, 0, "")
    assert (one.state.status, one.state.exit_code) == ("exited", 137)
    heeds = "trap 'exit 7' TERM; while :; do sleep 0.01; done"
    other = await engine.run("sh", "-c", heeds)
    await engine.lifecycle.stop(other, 20, "")
    assert other.state.exit_code == 7


async def test_pause_holds_and_ends(engine: FakeEngine) -> None:
    one = await engine.run("sleep", "1000")
    await engine.lifecycle.pause(one)
    with pytest.raises(Conflict):
        await engine.lifecycle.pause(one)
    assert one.state.status == "paused"
    await engine.lifecycle.stop(one, 0, "")
    assert one.state.status == "exited"


async def test_auto_remove(engine: FakeEngine) -> None:
    one = await engine.run("true", host=HostConfig(auto_remove=True))
    await engine.until(lambda: one.id not in engine.core.containers)
    assert not engine.paths.instance(one.id).exists()
    failed = await engine.make("nothing-like-it", host=HostConfig(auto_remove=True))
    with pytest.raises(CommandNotFound):
        await engine.lifecycle.start(failed)
    await engine.until(lambda: failed.id not in engine.core.containers)


class Check:
    """A health check's program that tests turn."""

    def __init__(self, world: World) -> None:
        self.status = 1
        self.runs = 0
        world.programs["check"] = self._run

    async def _run(self, io: Io) -> int:
        self.runs += 1
        io.write(1, b"not yet\n" if self.status else b"")
        return self.status

    def config(self, **more: Any) -> HealthConfig:
        every = 2 * MILLISECOND
        return HealthConfig(test=["CMD", "check"], interval=every, start_interval=every, **more)


async def test_health_follows_the_check(engine: FakeEngine) -> None:
    check = Check(engine.world)
    one = await engine.run("sleep", "1000", healthcheck=check.config(retries=3))
    assert one.state.health == "starting"
    await engine.until(lambda: one.state.health == "unhealthy")
    assert check.runs >= 3 and one.state.health_log[-1]["Output"] == "not yet\n"
    check.status = 0
    await engine.until(lambda: one.state.health == "healthy")
    assert one.state.failing_streak == 0
    await engine.lifecycle.stop(one, 0, "")
    assert one.state.health == ""


async def test_a_warm_replica_is_checked_at_once(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(FakeRuntime, "boot", lambda self, id: ("warm", ""))
    monkeypatch.setattr(FakeRuntime, "healthy", lambda self, id: told.append(id))
    check = Check(engine.world)
    check.status = 0
    rarely = HealthConfig(test=["CMD", "check"], interval=10**6 * MILLISECOND)
    one = await engine.run("sleep", "1000", healthcheck=rarely)
    await engine.until(lambda: one.state.health == "healthy")
    assert told == [one.id]


async def test_failures_while_it_starts_do_not_count(engine: FakeEngine) -> None:
    check = Check(engine.world)
    starting = check.config(retries=1, start_period=10**6 * MILLISECOND)
    one = await engine.run("sleep", "1000", healthcheck=starting)
    await engine.until(lambda: check.runs >= 5)
    assert one.state.health == "starting"


def test_checks_take_a_quarter_of_a_start_at_most() -> None:
    second = 1000 * MILLISECOND
    check = HealthConfig(test=["CMD", "x"], interval=5 * second, start_interval=second // 2)
    assert [health.wait(check, True, took) for took in (0, 0.1, 0.5, 60)] == [0.5, 0.5, 1.5, 5]
    assert health.wait(check, False, 60) == 5


async def test_a_check_that_hangs_fails(engine: FakeEngine) -> None:
    hangs = HealthConfig(
        test=["CMD", "sleep", "1000"], interval=MILLISECOND, timeout=5 * MILLISECOND, retries=1
    )
    one = await engine.run("sleep", "1000", healthcheck=hangs)
    await engine.until(lambda: one.state.health == "unhealthy")
    assert "exceeded timeout" in one.state.health_log[-1]["Output"]


async def test_the_unhealthy_is_started_again_where_that_is_asked(engine: FakeEngine) -> None:
    check = Check(engine.world)
    one = await engine.run(
        "sleep",
        "1000",
        healthcheck=check.config(retries=1),
        labels={"gemel.restart-on-unhealthy": "true"},
        stop_timeout=0,
    )
    await engine.until(lambda: one.state.restarts >= 1)
    check.status = 0
    await engine.until(lambda: one.state.health == "healthy")


async def test_the_next_engine_takes_up_what_is_there(engine: FakeEngine) -> None:
    runs = await engine.run("sleep", "1000")
    ends = await engine.run("sleep", "1000")
    comes_back = await engine.run("sleep", "1000", host=policy("unless-stopped"))
    stopped = await engine.run("sleep", "1000", host=policy("always"))
    await engine.lifecycle.stop(stopped, 0, "")
    await engine.until(lambda: not engine.core.live[stopped.id].tasks)  # its end is kept
    await engine.crash()
    engine.world.end(ends.id, 9)
    engine.world.end(comes_back.id, 1)
    after = FakeEngine(engine.paths, engine.world)
    await after.open()
    try:
        core = after.core.containers
        await after.until(lambda: core[ends.id].state.status == "exited")
        assert core[ends.id].state.exit_code == 9
        assert core[runs.id].state.status == "running"
        await after.until(lambda: core[comes_back.id].state.restarts == 1)
        assert core[stopped.id].state.status == "exited"
        # an end that comes later is seen as well
        after.world.end(runs.id, 4)
        await after.until(lambda: core[runs.id].state.exit_code == 4)
    finally:
        await after.crash()


async def test_after_a_restart_of_the_machine_nothing_runs_that_is_not_there(
    engine: FakeEngine,
) -> None:
    lost = await engine.run("sleep", "1000")
    comes_back = await engine.run("sleep", "1000", host=policy("always"))
    await engine.crash()
    await engine.world.close()
    after = FakeEngine(engine.paths, engine.world)
    await after.open()
    try:
        core = after.core.containers
        await after.until(lambda: core[lost.id].state.status == "exited")
        assert core[lost.id].state.exit_code == 137
        assert "the machine was restarted" in core[lost.id].state.error
        await after.until(lambda: after.alive(core[comes_back.id]))
    finally:
        await after.crash()
