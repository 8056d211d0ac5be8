"""What holds for every input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gemel.compose import yamlwrite
from gemel.compose.interpolate import BadTemplate, Variables, substitute
from gemel.compose.lint import lint
from gemel.compose.merge import Mismatch, merge, unique
from gemel.compose.observed import Observed
from gemel.compose.plan import UpOptions, plan_up
from gemel.compose.problems import Problems
from gemel.compose.render import canonical, to_yaml
from gemel.compose.requests import container
from gemel.compose.schema import SERVICE
from gemel.compose.tables import copied
from gemel.compose.yamlread import parse
from gemel.errors import GemelError

from .support import loaded

KEYS = [*(SERVICE.fields or {}), "services", "networks", "volumes", "secrets", "configs", "include"]
NESTED = [*KEYS, "a", "b", "source", "target", "x-y"]
WORDS = ["a", "x:y", "1:2", "80:80/udp", "./a:/b:ro", "service:a", "${A:-b}", "${A", "10s", "5g"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 70000)
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEYS, "a", "b", "source", "target", "x-y"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
SERVICES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.sampled_from(list(SERVICE.fields or {})), VALUES, max_size=5),
    max_size=3,
)


def attempt(text: str) -> str | None:
    """What is printed of a file, or None if it is refused. Nothing else may happen."""
    try:
        return to_yaml(canonical(loaded(text).project))
    except GemelError as error:
        assert error.brief
        return None


@given(SERVICES, VALUES, st.sampled_from(KEYS))
def test_any_structure_is_read_or_refused(services: Any, more: Any, key: str) -> None:
    for service in services.values():
        service.setdefault("image", "x")
    attempt(yaml.safe_dump({key: more, "services": services}, allow_unicode=True))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    attempt(f"services: {{a: {{image: x}}}}\n{text}")
    attempt(text)


@given(st.text("${}:-+?ab", max_size=20))
def test_any_template_is_replaced_or_refused(text: str) -> None:
    try:
        substitute(text, Variables({"a": "1", "b": ""}))
    except BadTemplate as error:
        assert str(error)


@given(st.text(max_size=30))
def test_escaped_dollars_come_back(text: str) -> None:
    assert substitute(text.replace("$", "$$"), Variables({})) == text


@given(SERVICES, SERVICES)
def test_merging(one: Any, two: Any) -> None:
    base, over = {"services": one}, {"services": two}
    before = copied([base, over])
    assert merge(base, {}) == base
    assert merge({}, over) == over
    try:
        made = merge(base, over)
    except Mismatch:
        return
    finally:
        assert [base, over] == before, "neither side is changed"
    assert unique(copied(made)) == unique(unique(copied(made)))


TREES = st.recursive(
    SCALARS | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=6), TREES, min_size=1, max_size=3))
def test_written_yaml_reads_back(tree: Any) -> None:
    problems = Problems()
    text = yamlwrite.dump(tree)
    documents = parse(text, "f", "f", problems)
    problems.check()
    assert documents[0].value == tree


GOLDEN = Path(__file__).parents[2] / "golden" / "compose"


CASES = [yaml.safe_load(path.read_text()) for path in sorted(GOLDEN.glob("*.yaml"))]
DAMAGE = st.sampled_from(
    ["", "$$", "${", "a: b", "- ", "null", "[]", "{}", "~", "*x", "&x", "!reset", "<<: x", "1e400",
     "2020-01-01", "'", "|", "\t", "\x00", "\u2028"]
)  # fmt: skip


@given(st.sampled_from(CASES), st.lists(st.tuples(st.integers(0), DAMAGE), max_size=3))
def test_a_damaged_file_is_read_or_refused(case: Any, damage: list[tuple[int, str]]) -> None:
    files = {name: str(text) for name, text in case["files"].items()}
    name = sorted(files)[0]
    for at, what in damage:
        lines = files[name].split("\n")
        place = at % len(lines)
        key, colon, _ = lines[place].partition(":")
        lines[place] = f"{key}: {what}" if colon else lines[place] + what
        files[name] = "\n".join(lines)
    try:
        found = loaded(files=files, use=(name,), env=case.get("env", {}), profiles=["*"])
        to_yaml(canonical(found.project))
        lint(found.project, found.origins)
        plan_up(found.project, Observed(), UpOptions())
        for service in found.project:
            container(found.project, service, 1, secrets_dir="/s")
    except GemelError as error:
        assert error.brief


def test_a_dollar_sign_is_a_character_like_others() -> None:
    text = "services: {a: {image: x, volumes: ['vol:/d$$l']}}\nvolumes: {vol: {}}"
    service = loaded(text).project.service("a")
    assert service.config["volumes"][0]["target"] == "/d$l"
    bad = "services: {a: {image: x, healthcheck: {test: [CMD, a], interval: 3$$s}}}"
    assert attempt(bad) is None
    kept = loaded("services: {a: {image: x, volumes: ['${A}:/d']}}", interpolate=False)
    assert kept.project.service("a").config["volumes"] == ["${A}:/d"]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_printed_form_is_stable(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    if "expected" in case and path.stem != "profiles":  # there a service waits for one left out
        again = loaded(case["expected"], env=case.get("env", {}), profiles=["*"]).project
        assert to_yaml(canonical(again)) == case["expected"]
