"""docs/openapi.yaml, as tests use it: which answers it allows."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

FILE = Path(__file__).parents[1] / "docs" / "openapi.yaml"
METHODS = ("get", "head", "post", "put", "delete")


@functools.cache
def document() -> dict[str, Any]:
    """The whole description."""
    found = yaml.safe_load(FILE.read_text())
    assert isinstance(found, dict)
    return found


def operations() -> set[tuple[str, str]]:
    """Method and path of everything that is described."""
    paths = document()["paths"].items()
    return {(key.upper(), path) for path, item in paths for key in item if key in METHODS}


def resolved(value: Any) -> Any:
    """A value, or what it refers to."""
    while isinstance(value, dict) and "$ref" in value:
        target: Any = document()
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


@functools.cache
def _validator(reference: str) -> jsonschema_rs.Validator:
    schema = {**json.loads(reference), "components": document()["components"]}
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def problem(method: str, path: str, status: int, kind: str, body: bytes) -> str:
    """What is wrong with an answer; empty if it is as described.

    path: as the description has it. kind: the answer's Content-Type. Of a stream of JSON
    lines every whole one is looked at; there may be none yet.
    """
    answers = document()["paths"][path][method.lower()]["responses"]
    answer = resolved(answers.get(str(status), answers.get("default")))
    if answer is None:
        return f"status {status} is not described"
    if status == 304 or method == "HEAD":
        return ""
    if not kind and not body and "application/json" not in answer.get("content", ()):
        return ""  # an empty stream
    if 200 <= status < 300 and str(status) not in answers:
        return f"status {status} is not described"
    content = answer.get("content")
    if content is None:
        return "" if not body else f"a body where none is described: {body[:80]!r}"
    kind = kind.partition(";")[0].strip()
    if kind not in content:
        return f"{kind or 'no type'} is not described for status {status}"
    if kind != "application/json":
        return ""
    validator = _validator(json.dumps(content[kind]["schema"], sort_keys=True))
    for line in body.split(b"\n")[:-1]:
        try:
            validator.validate(json.loads(line))
        except (ValueError, jsonschema_rs.ValidationError) as error:
            return f"{str(error)[:500]}: {line[:300]!r}"
    return ""
