"""Providers and models: the protocol, what the services are told, and what is wrong in a file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gemel.compose import lint, model, provider
from gemel.compose.observed import Observed
from gemel.compose.plan import UpOptions, orphans, plan_images, plan_up
from gemel.compose.project import Service
from gemel.compose.provider import Message, Messages, Metadata, Variables
from gemel.compose.steps import Kind
from gemel.compose.support import Level
from gemel.errors import Failed, InvalidInput

from .support import loaded, project
from .test_plan import running

FILE = """
services:
  my-db:
    provider: {type: cloud, options: {size: 3, kind: [a, b], on: true}}
    depends_on: [seed]
  seed: {image: seed}
  app:
    image: app
    environment: {REGION: mine}
    depends_on: {my-db: {condition: service_healthy}}
  other: {image: other, depends_on: [app]}
"""


def heard(*lines: str) -> list[Message]:
    messages = Messages("cloud")
    found = [one for line in lines for one in messages.feed(line.encode())]
    messages.end()
    return found


def test_messages_a_line_many_a_line_and_many_lines_a_message() -> None:
    one = '{"type": "info", "message": "a"}'
    assert heard(one, "", "  " + one + " " + one) == [Message("info", "a")] * 3
    assert heard("{", '"type": "setenv",', '"message":', '"A=1"', "}") == [Message("setenv", "A=1")]
    assert heard('{"type": "debug"}') == [Message("debug", "")]


@pytest.mark.parametrize(
    "lines",
    [
        ["hello"],
        ["{"],
        ["[1]"],
        ['{"message": "a"}'],
        ['{"type": "odd", "message": "a"}'],
        ['{"type": "info", "message": 3}'],
        ['{"type": ["info"], "message": ""}'],
        ['{"type": "info", "message": "a"} x'],
        ["[" * 3000],
        ["["] * 200,
        ["\x1b[2J\x07boo"],
    ],
)
def test_what_is_no_message(lines: list[str]) -> None:
    with pytest.raises(Failed, match="cloud says what no provider says") as problem:
        heard(*lines)
    assert "\x1b" not in problem.value.brief and len(problem.value.brief) < 300


def test_arguments_with_and_without_metadata() -> None:
    service = project(FILE).service("my-db")
    given = ["--kind=a", "--kind=b", "--on=true", "--size=3"]
    argv = provider.arguments("p", service, "up", Metadata())
    assert argv == ["compose", "--project-name=p", "up", *given, "my-db"]
    known = provider.metadata(
        b'{"description": "d", "up": {"parameters": [{"name": "size", "required": true},'
        b' {"name": "kind", "type": "string"}]}, "down": {"parameters": []}}'
    )
    assert provider.arguments("p", service, "up", known)[3:-1] == given[:2] + given[3:]
    assert provider.arguments("p", service, "down", known)[3:] == ["my-db"]
    assert provider.unknown(service, known) == ["on"]
    assert known.stop is None
    without = Service("my-db", {"provider": {"type": "cloud"}})
    with pytest.raises(InvalidInput, match=r"provider\.options lacks size"):
        provider.arguments("p", without, "up", known)


@pytest.mark.parametrize("output", [b"", b"usage: x", b"[]", b'{"up": 3}', b'{"description": 1}'])
def test_metadata_that_says_nothing(output: bytes) -> None:
    assert provider.metadata(output).empty


def test_variables() -> None:
    variables = Variables()
    provider.keep(variables, Message("setenv", "URL=a=b"), "cloud")
    provider.keep(variables, Message("rawsetenv", "REGION="), "cloud")
    assert (variables.prefixed, variables.raw) == ({"URL": "a=b"}, {"REGION": ""})
    for wrong in ("URL", "=a", "A=\0", "A=" + "x" * 70_000):
        with pytest.raises(Failed, match="sets a variable that cannot be set"):
            provider.keep(variables, Message("setenv", wrong), "cloud")
    with pytest.raises(Failed, match="too many"):
        for number in range(1000):
            provider.keep(variables, Message("setenv", f"V{number}=1"), "cloud")


def test_only_direct_dependents_are_told() -> None:
    found = {"my-db": Variables({"URL": "u"}, {"REGION": "eu"})}
    told, warnings = provider.told(project(FILE), found)
    assert told.service("app").environment == {"REGION": "eu", "MY-DB_URL": "u"}
    assert not told.service("other").environment and not told.service("seed").environment
    assert warnings == ['provider "my-db" overrides environment variable "REGION" in service "app"']
    again, warnings = provider.told(told, found)
    assert again == told and warnings == []


def test_the_plan_calls_it_between_what_it_needs_and_what_needs_it() -> None:
    plan = plan_up(project(FILE), Observed(), UpOptions())
    by_id = {step.id: step for step in plan.steps}
    (call,) = plan.of(Kind.PROVIDE)
    assert (call.name, call.reason) == ("my-db", "provider cloud")
    before = {by_id[id].name for id in call.after if by_id[id].kind is Kind.START}
    assert before == {"project-seed-1"}
    starts = {step.name: step for step in plan.of(Kind.START)}
    assert call.id in starts["project-app-1"].after
    assert not plan.of(Kind.WAIT)  # whatever the condition is: it has no health
    done = UpOptions(provided=("my-db",))
    assert not plan_up(project(FILE), Observed(), done).of(Kind.PROVIDE)
    made = plan_up(project(FILE), Observed(), UpOptions(start=False))
    assert made.of(Kind.PROVIDE) and not made.of(Kind.START)
    images = {step.name for step in plan_images(project(FILE), Observed(), UpOptions()).steps}
    assert images == {"seed", "app", "other"}


def test_a_container_that_the_service_had_before_is_an_orphan() -> None:
    before = project(FILE.replace("provider: {", "image: db\n    x-was: {"))
    found = orphans(project(FILE), running(before))
    assert [one.name for one in found] == ["project-my-db-1"]


def test_a_provider_cannot_be_scaled_and_its_other_attributes_are_told_of() -> None:
    with pytest.raises(InvalidInput, match="a provider runs it"):
        project(FILE).with_scale({"my-db": 2})
    text = FILE.replace("  seed:", "    ports: ['80:80']\n    gpus: all\n  seed:")
    found = lint.lint(loaded(text).project, loaded(text).origins)
    told = {(one.attribute, one.level, one.place.line) for one in found}
    assert told == {
        ("services.my-db.ports", Level.IGNORED, 6),
        ("services.my-db.gpus", Level.IGNORED, 7),
    }


def test_the_place_of_a_provider_and_of_a_model() -> None:
    text = FILE + "models:\n  llm: {model: m}\n"
    assert project(text).marks == {
        "services.my-db": "compose.yaml:4:5",
        "models.llm": "compose.yaml:13:3",
    }


MODELS = """
services:
  app:
    image: app
    environment: {OTHER_URL: mine}
    models: {my-llm: , other: {endpoint_var: AT, model_var: NAME}}
  more: {image: more, models: [my-llm]}
  none: {image: none}
models:
  my-llm: {model: ai/small}
  other: {model: ai/large, context_size: 8, x-gemel: {endpoint: "http://ai:80/v1"}}
"""


def test_services_are_told_their_models() -> None:
    read = project(MODELS)
    told = model.told(read, lambda key: model.endpoint(read.models[key]) or "http://runner/")
    assert told.service("app").environment == {
        "OTHER_URL": "mine",
        "MY_LLM_URL": "http://runner/",
        "MY_LLM_MODEL": "ai/small",
        "AT": "http://ai:80/v1",
        "NAME": "ai/large",
    }
    assert set(told.service("more").environment) == {"MY_LLM_URL", "MY_LLM_MODEL"}
    assert told.service("none") == read.service("none")
    assert list(model.used(read, ["more"])) == ["my-llm"]
    assert model.told(read, lambda key: "").service("more") == read.service("more")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("3", "x-gemel must be a mapping"),
        ("{endpont: a}", 'unknown key "endpont"'),
        ("{endpoint: ai:80}", "endpoint must be a URL"),
        ("{endpoint: 'http://'}", "endpoint must be a URL"),
        ("{endpoint: 'http://a:b/'}", "endpoint must be a URL"),
        ("{endpoint: 'http://a b/'}", "endpoint must be a URL"),
        ("{endpoint: [a]}", "endpoint must be a URL"),
    ],
)
def test_wrong_endpoints_are_told_of_with_their_line(value: str, words: str) -> None:
    text = MODELS.replace('{endpoint: "http://ai:80/v1"}', value)
    with pytest.raises(InvalidInput) as problem:
        loaded(text)
    assert words in problem.value.details and "compose.yaml:11:" in problem.value.details


def test_a_server_on_localhost_is_nobody_elses() -> None:
    text = MODELS.replace("//ai:80", "//localhost:80")
    found = lint.lint(loaded(text).project, loaded(text).origins)
    levels: dict[str, Any] = {one.attribute: one.level for one in found}
    assert levels == {
        "models.other.context_size": Level.IGNORED,
        "models.other.x-gemel.endpoint": Level.REFUSED,
    }
    assert "host.docker.internal" in json.dumps([one.words for one in found])
