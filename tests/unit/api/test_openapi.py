"""docs/openapi.yaml describes the routes that there are, and no others."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from gemel.api.routing import MAX_VERSION_TEXT
from gemel.api.server import make_router
from tests import openapi


def test_every_route_is_described_and_none_is_invented() -> None:
    routes = {(r.method, r.pattern.replace(":*}", "}")) for r in make_router().routes}
    described = openapi.operations()
    assert routes - described == set(), "routes that docs/openapi.yaml lacks"
    assert described - routes == set(), "docs/openapi.yaml describes what is not there"


def test_parameters_of_paths_are_declared_and_schemas_are_schemas() -> None:
    document = openapi.document()
    assert document["info"]["version"] == MAX_VERSION_TEXT
    for path, item in document["paths"].items():
        for method in set(item) & set(openapi.METHODS):
            given = [*item.get("parameters", []), *item[method].get("parameters", [])]
            known = [openapi.resolved(one) for one in given]
            named = {one["name"] for one in known if one["in"] == "path"}
            asked = {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert named == asked, f"{method} {path}"
            assert item[method]["responses"], f"{method} {path}"
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.validator_for({**schema, "components": document["components"]})
        assert name[0].isupper()


ERROR = b'{"message":"no"}\n'


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "body", "words"),
    [
        ("GET", "/containers/json", 200, "application/json", b"[]\n", ""),
        ("GET", "/containers/json", 200, "application/json", b'[{"Id":"a"}]\n', "required"),
        ("GET", "/containers/json", 200, "text/plain", b"[]\n", "text/plain is not described"),
        ("GET", "/containers/json", 201, "application/json", b"[]\n", "201 is not described"),
        ("GET", "/containers/json", 400, "application/json; charset=utf-8", ERROR, ""),
        ("GET", "/containers/json", 400, "application/json", b"{}\n", "message"),
        ("POST", "/containers/{id}/start", 204, "", b"", ""),
        ("POST", "/containers/{id}/start", 204, "", b"x", "a body where none is described"),
        ("GET", "/swarm", 503, "application/json", ERROR, ""),
        ("GET", "/swarm", 200, "application/json", b"{}\n", "200 is not described"),
        ("GET", "/events", 200, "application/json", b'{"Type":"a"}\n{"Typ', "required"),
    ],
)
def test_what_does_not_fit_the_description_is_found(
    method: str, path: str, status: int, kind: str, body: bytes, words: str
) -> None:
    found: Any = openapi.problem(method, path, status, kind, body)
    assert words in found if words else found == ""
