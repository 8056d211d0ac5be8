"""Updates one by one, in plans."""

from __future__ import annotations

import msgspec
import pytest

from gemel.compose.observed import observe
from gemel.compose.plan import UpOptions, plan_up
from gemel.compose.rolling import rolling
from gemel.compose.steps import Kind

from .support import project
from .test_plan import running

TEXT = """
services:
  db: {image: db, healthcheck: {test: [CMD, ok]}}
  web:
    image: web
    scale: 2
    depends_on: {db: {condition: service_healthy}}
    deploy: {update_config: {order: start-first, parallelism: 2, delay: 3s}}
  other: {image: other, depends_on: {web: {condition: service_started, restart: true}}}
"""


def test_a_service_with_update_config_is_replaced_one_by_one() -> None:
    before = running(project(TEXT))
    plan = plan_up(project(TEXT.replace("image: web", "image: new")), before, UpOptions())
    assert [step.kind for step in plan.steps] == [Kind.WAIT, Kind.UPDATE, Kind.RESTART]
    wait, update, restart = plan.steps
    assert wait.id in update.after
    assert update.id in restart.after
    assert [change.name for change in update.changes] == ["project-web-1", "project-web-2"]
    assert update.rolling is not None
    assert (update.rolling.parallelism, update.rolling.delay) == (2, 3.0)
    assert plan_up(project(TEXT), before, UpOptions()).steps == ()


def test_others_are_made_anew_at_once_unless_an_update_is_asked_for() -> None:
    before = running(project(TEXT))
    changed = project(TEXT.replace("image: other", "image: new"))
    assert plan_up(changed, before, UpOptions()).of(Kind.UPDATE) == []
    options = UpOptions(services=("other",), no_deps=True, update=True)
    update = plan_up(changed, before, options).of(Kind.UPDATE)[0]
    assert update.rolling is not None
    assert update.rolling.order == "start-first"
    options = msgspec.structs.replace(options, order="stop-first")
    update = plan_up(changed, before, options).of(Kind.UPDATE)[0]
    assert update.rolling is not None
    assert update.rolling.order == "stop-first"
    attached = UpOptions(roll=False, force_recreate=True)
    assert plan_up(changed, before, attached).of(Kind.UPDATE) == []


@pytest.mark.parametrize(
    ("more", "order", "words"),
    [
        ("network_mode: host", "stop-first", "uses the host's network"),
        ("networks: {default: {ipv4_address: 10.9.0.7}}", "stop-first", "fixed address"),
        ("hostname: x", "start-first", ""),
    ],
)
def test_what_cannot_run_twice_is_stopped_first(more: str, order: str, words: str) -> None:
    text = f"services: {{web: {{image: web, {more}}}}}"
    options = UpOptions(services=("web",), update=True, force_recreate=True)
    plan = plan_up(project(text), running(project(text)), options)
    update = plan.of(Kind.UPDATE)[0]
    assert update.rolling is not None
    assert update.rolling.order == order
    assert words in "\n".join(plan.warnings)


def test_a_service_whose_network_another_one_shares_is_made_anew_at_once() -> None:
    text = "services: {web: {image: web}, side: {image: side, network_mode: 'service:web'}}"
    options = UpOptions(services=("web",), update=True, force_recreate=True)
    plan = plan_up(project(text), running(project(text)), options)
    assert plan.of(Kind.UPDATE) == []
    assert "side shares its network_mode" in "\n".join(plan.warnings)


def test_what_an_update_that_was_broken_off_left_is_removed() -> None:
    def entry(name: str, id: str) -> dict[str, object]:
        labels = {"com.docker.compose.service": "web", "com.docker.compose.container-number": "1"}
        return {"Id": id, "Names": [f"/{name}"], "State": "running", "Labels": labels}

    observed = observe([entry("0123456789ab_p-web-1", "new"), entry("p-web-1", "old")])
    assert [container.id for container in observed.of("web")] == ["old", "new"]


def test_settings() -> None:
    service = project(
        "services: {web: {image: web, x-gemel: {drain: 1m}, deploy: {update_config:"
        " {monitor: 2s, failure_action: rollback, max_failure_ratio: 0.5, parallelism: 0}}}}"
    ).service("web")
    made = rolling(service)
    assert made is not None
    assert (made.order, made.parallelism, made.monitor) == ("stop-first", 0, 2.0)
    assert (made.failure_action, made.max_failure_ratio, made.drain) == ("rollback", 0.5, 60.0)


def test_a_rollback_is_done_as_its_own_config_says() -> None:
    text = TEXT.replace(
        "deploy: {", "deploy: {rollback_config: {order: stop-first, parallelism: 1, delay: 2s}, "
    )
    how = rolling(project(text).service("web"))
    assert how is not None
    assert (how.back.order, how.back.parallelism, how.back.delay) == ("stop-first", 1, 2.0)
    plain = rolling(project(TEXT).service("web"))
    assert plain is not None
    assert (plain.back.order, plain.back.parallelism, plain.back.delay) == ("start-first", 0, 0.0)
