"""Small parts of the engine: events, filters, coalescing, texts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gemel.engine import filters
from gemel.engine.core import Coalesced
from gemel.engine.events import QUEUE, Events
from gemel.engine.inspect import status_text
from gemel.engine.records import NEVER, Container, State, parse_stamp, stamp
from gemel.errors import InvalidInput
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import RuntimeName


def container(**state: Any) -> Container:
    return Container(
        id="ab" * 32,
        name="shop-web-1",
        created=stamp(time.time_ns()),
        request=CreateRequest(image="x", labels={"a": "1"}, host_config=HostConfig()),
        image_id="sha256:0",
        image_ref="x",
        runtime=RuntimeName.CONTAINER,
        argv=["true"],
        state=State(**state),
    )


def test_times_go_both_ways() -> None:
    now = time.time_ns()
    assert abs(parse_stamp(stamp(now)) - now / 1e9) < 1e-3
    assert parse_stamp(NEVER) == 0
    assert parse_stamp("nonsense") == 0


def test_status_texts() -> None:
    ago = stamp(time.time_ns() - 5 * 60 * 1_000_000_000)
    assert status_text(container()) == "Created"
    assert status_text(container(status="running", started_at=ago)) == "Up 5 minutes"
    healthy = container(status="running", started_at=ago, health="healthy")
    assert status_text(healthy) == "Up 5 minutes (healthy)"
    starting = container(status="running", started_at=ago, health="starting")
    assert status_text(starting) == "Up 5 minutes (health: starting)"
    ended = container(status="exited", exit_code=3, finished_at=ago)
    assert status_text(ended) == "Exited (3) 5 minutes ago"


def test_filters_of_containers() -> None:
    one = container(status="running")
    assert filters.container(one, {"name": ["web"]}, set())
    assert not filters.container(one, {"name": ["db"]}, set())
    assert filters.container(one, {"label": ["a=1", "a"]}, set())
    assert not filters.container(one, {"label": ["a=2"]}, set())
    assert filters.container(one, {"status": ["exited", "running"]}, set())
    with pytest.raises(InvalidInput, match="invalid filter"):
        filters.known({"colour": ["red"]}, filters.CONTAINER_FILTERS)


async def test_events_past_and_present() -> None:
    events = Events()
    events.emit("container", "create", "1", {"name": "a"})
    past = time.time_ns() - 10**9
    stream = events.stream(past, 0, {"event": ["create", "start"]})
    events.emit("container", "die", "1", {"name": "a"})
    events.emit("container", "start", "1", {"name": "a"})
    async with asyncio.timeout(60):
        assert (await anext(stream))["Action"] == "create"
        assert (await anext(stream))["Action"] == "start"


async def test_events_end_at_their_time() -> None:
    events = Events()
    stream = events.stream(0, time.time_ns() + 50_000_000, {})
    async with asyncio.timeout(60):
        assert [event async for event in stream] == []


async def test_a_subscriber_that_does_not_read_is_cut_off() -> None:
    events = Events()
    stream = events.stream(0, 0, {})
    for n in range(QUEUE + 10):
        events.emit("image", "tag", str(n), {})
    async with asyncio.timeout(60):
        got = [event async for event in stream]
    assert len(got) < QUEUE


async def test_a_job_is_shared_by_those_who_wait() -> None:
    runs = 0

    async def job() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)

    shared = Coalesced(job)
    async with asyncio.timeout(60):
        await asyncio.gather(*(shared() for _ in range(20)))
    # the first runs at once, the others share the run after it
    assert runs == 2


async def test_a_job_that_fails_is_tried_again_by_the_next() -> None:
    fails = [True, False]

    async def job() -> None:
        if fails.pop(0):
            raise OSError("no")

    shared = Coalesced(job)
    with pytest.raises(OSError, match="no"):
        await shared()
    await shared()
    assert fails == []
