"""All mistakes of a file are told at once, each once, and nothing that follows from them."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemel.compose import lint
from gemel.compose.problems import WrongFiles
from tests.unit.compose.support import loaded

BASE = """\
services:
  fine:
    image: x
    networks: [back]
    volumes: ["data:/d"]
    depends_on: [helper]
  helper:
    image: x
    ports: ["8080:80"]
"""
TOP = """\
networks:
  back:
volumes:
  data: {}
secrets:
  token: {file: ./token}
"""


class Fault(NamedTuple):
    """Lines of a service, the first of which is wrong, and what is told of it."""

    body: str
    words: str
    whole: bool = False
    """Whether the body says itself what its image is."""


FAULTS = [
    Fault("enviroment: {A: 1}", 'unknown key "enviroment"'),
    Fault("imgae: x", 'unknown key "imgae"', whole=True),
    Fault("image: 5", "image must be a text", whole=True),
    Fault('image: "x:${V"', "no closing brace", whole=True),
    Fault('command: "${MUST:?say it}"', "required variable MUST is missing a value: say it"),
    Fault("scale: ${WORD:-many}", '"many" is not a whole number'),
    Fault('ports: ["80:99999"]', "80:99999"),
    Fault("ports: {a: b}", "ports must be a list"),
    Fault("ports:\n      - {tagret: 80}", 'unknown key "tagret"'),
    Fault("expose: [http]", "expose takes a port"),
    Fault("mem_limit: 12x", "is not a size"),
    Fault("stop_grace_period: 5 minutes", "is not a duration"),
    Fault("healthcheck: {test: [a]}", "must be CMD, CMD-SHELL or NONE"),
    Fault("depends_on: [helpr]", 'undefined service "helpr" (did you mean "helper"?)'),
    Fault("depends_on: {helper: {condition: helthy}}", "depends_on.helper.condition"),
    Fault("depends_on: {helper: {}}", "needs the key condition"),
    Fault("networks: [bak]", 'undefined network "bak" (did you mean "back"?)'),
    Fault('volumes: ["dat:/x"]', 'undefined volume "dat" (did you mean "data"?)'),
    Fault("volumes: [{type: bind, target: /x}]", "a bind needs a source"),
    Fault("volumes: [{type: bnd, target: /x, source: ./y}]", 'is "bnd" (did you mean "bind"?)'),
    Fault("volumes: [{target: /x, source: ./y}]", "needs the key type"),
    Fault("secrets: [tokn]", 'undefined secret "tokn" (did you mean "token"?)'),
    Fault("secrets: [{sorce: token}]", 'unknown key "sorce"'),
    Fault("env_file: [{pth: ./a.env}]", 'unknown key "pth"'),
    Fault("env_file: ./missing.env", "missing.env not found"),
    Fault("extends: {service: nobody}", 'there is no service "nobody"', whole=True),
    Fault("extends: {file: ./missing.yaml, service: a}", "missing.yaml does not exist", whole=True),
    Fault("build: {contxt: .}", 'unknown key "contxt"', whole=True),
    Fault("develop: {watch: [{path: ., action: sync, tarrget: /x}]}", 'unknown key "tarrget"'),
    Fault("develop: {watch: [{path: ., action: sync}]}", "the action sync needs a target"),
    Fault("privileged: perhaps", "neither true nor false"),
    Fault("restart: [no]", "restart must be a text"),
    Fault("extra_hosts: [alone]", "the address is missing"),
    Fault("container_name: one\n    scale: 2", "container_name must be unique"),
    Fault("x-gemel: {drian: 5s}", 'unknown key "drian"'),
    Fault("deploy: {replicas: -1}", "fewer than 0"),
    Fault("ulimits: {NOFILE: 5}", "is not a valid name"),
]
REFUSED = Fault("runtime: microvm\n    network_mode: host", "is refused in a micro VM")


def written(faults: list[Fault]) -> tuple[str, list[tuple[int, str]]]:
    """A file with each fault in a service of its own, and what is to be told, by line."""
    text, expected = BASE, []
    for number, fault in enumerate(faults):
        text += f"  s{number}:\n" + ("" if fault.whole else "    image: x\n")
        body = f"    {fault.body}\n"
        at = text.count("\n") + 1
        if "network_mode" in fault.body or "tagret" in fault.body:
            at += 1
        expected.append((at, fault.words))
        text += body
    return text + TOP, expected


def told(error: WrongFiles) -> list[tuple[int, str]]:
    found = re.findall(r"^compose\.yaml:(\d+):\d+: (.*)$", error.details, re.MULTILINE)
    return [(int(line), words) for line, words in found]


def check(told_of: list[tuple[int, str]], expected: list[tuple[int, str]]) -> None:
    assert [line for line, _ in told_of] == [line for line, _ in expected], told_of
    for (_, words), (_, wanted) in zip(told_of, expected, strict=True):
        assert wanted in words


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.body.split("\n")[0])
def test_each_alone(fault: Fault) -> None:
    text, expected = written([fault])
    with pytest.raises(WrongFiles) as caught:
        loaded(text)
    check(told(caught.value), expected)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(FAULTS), min_size=2, max_size=40, unique=True))
def test_any_number_of_them(faults: list[Fault]) -> None:
    text, expected = written(faults)
    with pytest.raises(WrongFiles) as caught:
        loaded(text)
    check(told(caught.value), expected)


def test_what_is_refused_is_told_beside_mistakes() -> None:
    text, expected = written([FAULTS[0], REFUSED, FAULTS[-1]])
    with pytest.raises(WrongFiles) as caught:
        loaded(text)
    check(told(caught.value), [expected[0], expected[2]])
    check(told(lint.complete(caught.value)), expected)
