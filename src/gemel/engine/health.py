"""Health checks (Docker: HEALTHCHECK): a program run in the instance, or a look from outside.

With the label ``gemel.restart-on-unhealthy`` an instance that becomes unhealthy is
ended and started again, with the backoff of restart policies.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from gemel.engine import probes
from gemel.engine.core import Core
from gemel.engine.records import Container, now, stamp
from gemel.errors import GemelError
from gemel.model.image import HealthConfig
from gemel.model.instance import Process
from gemel.runtime.base import ExecSession

SECOND = 1_000_000_000
INTERVAL = 30 * SECOND
TIMEOUT = 30 * SECOND
START_INTERVAL = 5 * SECOND
RETRIES = 3
REST = 3.0
"""Of a start, checks may take a quarter: so many times as long as one took there is none."""
KEEP_RESULTS = 5
KEEP_OUTPUT = 4096
RESTART_LABEL = "gemel.restart-on-unhealthy"

Sick = Callable[[Container], Awaitable[None]]
"""What is done with a container that becomes unhealthy and is to be started again."""


def wanted(one: Container) -> bool:
    """Whether the container has a health check that is not turned off."""
    check = one.request.healthcheck
    return bool(check and check.test and check.test[0] in ("CMD", "CMD-SHELL", *probes.KINDS))


def program(one: Container, check: HealthConfig) -> tuple[str, ...]:
    """The check's argv."""
    test = check.test or []
    if test[0] == "CMD":
        return tuple(test[1:])
    return (*(one.request.shell or ["/bin/sh", "-c"]), " ".join(test[1:]))


async def keep(core: Core, one: Container, sick: Sick) -> None:
    """Checks until the container ends."""
    check = one.request.healthcheck
    assert check is not None
    over = core.live[one.id].over  # the end of this run: later runs have checks of their own
    begun = time.monotonic()
    period = check.start_period / SECOND
    # what is a copy of a healthy service need not be waited for
    at_once = core.runtime(one).boot(one.id)[0] == "warm" and one.state.health == "starting"
    took = 0.0
    while not over.is_set():
        starting = one.state.health == "starting" and time.monotonic() - begun < period
        pause = wait(check, starting, took)
        if at_once:
            pause, at_once = 0.0, False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await over.wait()
                return
        if one.state.status == "paused":
            continue
        asked = time.monotonic()
        await _once(core, one, check, begun, over)
        took = time.monotonic() - asked
        restart = (one.request.labels or {}).get(RESTART_LABEL) == "true"
        if one.state.health == "unhealthy" and restart:
            return await sick(one)


def wait(check: HealthConfig, starting: bool, took: float) -> float:
    """Seconds until the next check. took: those of the last one.

    While it starts, what checks take is taken from the start itself: a check that takes long, as
    under emulation, comes less often, but never less than when the start is over.
    """
    usual = (check.interval or INTERVAL) / SECOND
    if not starting:
        return usual
    return min(max((check.start_interval or START_INTERVAL) / SECOND, REST * took), usual)


async def _once(
    core: Core, one: Container, check: HealthConfig, begun: float, over: asyncio.Event
) -> None:
    began = now()
    status, output = await probe(core, one, check)
    if over.is_set() or not one.state.running:  # it has ended, or is being tidied up after
        return
    state = one.state
    state.health_log = [
        *state.health_log[-KEEP_RESULTS + 1 :],
        {"Start": began, "End": stamp(time.time_ns()), "ExitCode": status, "Output": output},
    ]
    before = state.health
    if status == 0:
        state.failing_streak = 0
        state.health = "healthy"
        core.runtime(one).healthy(one.id)
    elif not (before == "starting" and time.monotonic() - begun < check.start_period / SECOND):
        state.failing_streak += 1
        if state.failing_streak >= (check.retries or RETRIES):
            state.health = "unhealthy"
    if state.health != before:
        await core.sync_names()
        core.emit(one, f"health_status: {state.health}")
        if state.health == "unhealthy" and core.witness is not None:
            core.witness.sick(one)
    await core.save(one)


async def probe(core: Core, one: Container, check: HealthConfig) -> tuple[int, str]:
    """Runs the check once: exit status (-1: it took too long or could not run), and its output."""
    seconds = (check.timeout or TIMEOUT) / SECOND
    if check.test and check.test[0] in probes.KINDS:
        return await _from_outside(core, one, check.test, seconds)
    process = Process(
        argv=program(one, check),
        env=tuple(item for item in one.request.env or [] if "=" in item),
        cwd=one.request.working_dir or "/",
        user=one.request.user,
    )
    output = bytearray()
    session: ExecSession | None = None
    try:
        async with asyncio.timeout(seconds):
            session = await core.runtime(one).exec(one.id, process)
            while (piece := await session.read()) is not None:
                output += piece[1][: max(0, KEEP_OUTPUT - len(output))]
            status = await session.wait()
    except TimeoutError:
        text = bytes(output).decode("utf-8", "replace")
        if session is not None:
            with contextlib.suppress(GemelError):
                await session.kill(9)
        return -1, f"Health check exceeded timeout ({seconds:g}s): {text}"
    except GemelError as error:
        return -1, str(error)
    finally:
        if session is not None:
            await session.close()
    return status, bytes(output).decode("utf-8", "replace")


async def _from_outside(
    core: Core, one: Container, test: list[str], seconds: float
) -> tuple[int, str]:
    address = core.address(one)
    if not address:
        return -1, "a check from outside needs an address: the container is on no network"
    try:
        async with asyncio.timeout(seconds):
            return await probes.run(test, address)
    except TimeoutError:
        return -1, f"Health check exceeded timeout ({seconds:g}s)"
