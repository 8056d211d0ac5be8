"""An exit in words."""

from __future__ import annotations

import pytest

from gemel.engine import why
from gemel.engine.records import Container, State, stamp
from gemel.model.docker import CreateRequest, HostConfig, RestartPolicy
from gemel.model.instance import RuntimeName


def container(state: State, policy: str = "", memory: int = 0) -> Container:
    host = HostConfig(restart_policy=RestartPolicy(name=policy), memory=memory)
    return Container(
        id="a" * 64,
        name="one",
        created=stamp(0),
        request=CreateRequest(host_config=host),
        image_id="i",
        image_ref="i:latest",
        runtime=RuntimeName.CONTAINER,
        argv=["x"],
        state=state,
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(status="exited", exit_code=137, oom=True), "memory limit of 64 MiB"),
        (State(status="exited", exit_code=137), "SIGKILL"),
        (State(status="exited", exit_code=143, stopped_by_user=True), "gemel was told to stop it"),
        (State(status="exited", exit_code=127), "not in the image"),
        (State(status="exited", exit_code=3), "the program's own status"),
        (State(status="exited", exit_code=255), "the program's own status"),
        (State(status="exited", exit_code=127, error="no such file: x"), "no such file: x"),
        (State(status="exited", exit_code=3), "no restart policy"),
        (
            State(
                status="running",
                health="unhealthy",
                failing_streak=3,
                health_log=[{"ExitCode": 1, "Output": "no\nanswer"}],
            ),
            "failed 3 times in a row (``): no answer",
        ),
    ],
)
def test_reasons(state: State, words: str) -> None:
    assert any(words in text for text in why.reasons(container(state, memory=64 << 20)))


def test_a_service_that_is_well_needs_no_reasons() -> None:
    assert why.reasons(container(State(status="running", health="healthy"))) == []


def test_headline() -> None:
    state = State(status="exited", exit_code=3, started_at=stamp(10**9), finished_at=stamp(10**10))
    assert why.headline(container(state), 3610.0) == (
        "exited: ended with status 3 after 9.0 s, 60 min ago"
    )
