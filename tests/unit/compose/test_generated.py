"""Files made from the rules themselves, so that every later phase sees every attribute."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gemel.compose.builds import build_request
from gemel.compose.down import DownOptions, plan_down
from gemel.compose.lint import lint
from gemel.compose.observed import Observed
from gemel.compose.plan import UpOptions, plan_images, plan_up
from gemel.compose.render import canonical, to_json, to_yaml
from gemel.compose.requests import container, network, volume
from gemel.compose.schema import COMPOSE, SERVICE, Rule
from gemel.compose.tables import words
from gemel.errors import GemelError

from .support import loaded

TEXTS = st.sampled_from(
    words(
        "a b v a:b ./a:/b /x:/y:ro v:/d:z 80 80:80 1-3:1-3/udp 127.0.0.1:80:80 ::1 service:a host"
        " none container:q 10s 1m30s 512m 1.5 -1 true all a=b A=1 A x=10.0.0.1 10.0.0.0/24 ${A} $"
        " 0400 always every_2h on-failure:3 /p p /x:size=1m CMD label:x"
    )
)
BY_KIND: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "number": st.integers(-1, 70000) | st.sampled_from([0.5, 1e9]),
    "integer": st.integers(-1, 1000),
    "boolean": st.booleans(),
    "null": st.none(),
}
NAMES = st.sampled_from(["a", "b", "v", "nofile"])


def values(rule: Rule, depth: int = 0) -> st.SearchStrategy[Any]:
    """What a rule takes."""
    options: list[st.SearchStrategy[Any]] = []
    if rule.enum:
        options.append(st.sampled_from(rule.enum))
    else:
        options += [BY_KIND[kind] for kind in sorted(rule.scalars)]
    if rule.items is not None:
        options.append(st.lists(values(rule.items, depth + 1), max_size=2, unique_by=repr))
    if rule.other is not None:
        options.append(st.dictionaries(NAMES, values(rule.other, depth + 1), max_size=2))
    elif rule.fields is not None:
        fields = {key: values(below, depth + 1) for key, below in rule.fields.items()}
        options.append(some(fields, 3))
    return st.one_of(options)


def some(fields: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[Any]:
    """A mapping of a few of the fields."""
    return st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True).flatmap(
        lambda keys: st.fixed_dictionaries({key: fields[key] for key in keys})
    )


SERVICES = st.fixed_dictionaries(
    {"image": st.just("x")},
    optional={},
).flatmap(
    lambda fixed: some({k: values(r) for k, r in (SERVICE.fields or {}).items()}, 5).map(
        lambda more: {**fixed, **more}
    )
)
TOPS = {
    kind: st.dictionaries(NAMES, values((COMPOSE.fields or {})[kind].other or Rule()), max_size=2)
    for kind in ("networks", "volumes", "secrets", "configs")
}
FILES = st.fixed_dictionaries(
    {"services": st.dictionaries(NAMES, SERVICES, min_size=1, max_size=2)}, optional=TOPS
)


@settings(max_examples=60)
@given(FILES)
def test_every_phase_takes_what_the_rules_allow(file: dict[str, Any]) -> None:
    text = yaml.safe_dump(file, sort_keys=False)
    try:
        found = loaded(text, files={"p": "A=1", "a": "B=2"}, env={"A": "1"}, profiles=["*"])
        project = found.project
        printed = to_yaml(canonical(project))
        to_json(canonical(project, as_json=True))
        lint(project, found.origins)
        plan_images(project, Observed(), UpOptions())
        plan_up(project, Observed(), UpOptions())
        plan_down(project, Observed(), DownOptions(volumes=True, images="all"))
        for service in project:
            container(project, service, 1, secrets_dir="/s")
            if service.build is not None:
                build_request(project, service)
        for key in project.networks:
            network(project, key)
        for key in project.volumes:
            volume(project, key)
    except GemelError as error:
        assert error.brief
        return
    again = loaded(printed, env={"A": "1"}, profiles=["*"]).project
    assert to_yaml(canonical(again)) == printed
