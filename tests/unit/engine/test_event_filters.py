"""Which events pass which filter of GET /events."""

from __future__ import annotations

from typing import Any

import pytest

from gemel.engine import filters

RUNS: dict[str, Any] = {
    "Type": "container",
    "Action": "exec_start: sh -c true",
    "Actor": {
        "ID": "c" * 64,
        "Attributes": {"name": "web", "image": "localhost:5000/shop/web:2", "a": "b", "bare": ""},
    },
    "scope": "local",
}
TAGGED: dict[str, Any] = {
    "Type": "image",
    "Action": "tag",
    "Actor": {"ID": "sha256:1", "Attributes": {"name": "busybox:1"}},
    "scope": "local",
}
MADE: dict[str, Any] = {
    "Type": "volume",
    "Action": "create",
    "Actor": {"ID": "data", "Attributes": {"driver": "local"}},
    "scope": "local",
}


@pytest.mark.parametrize(
    ("one", "wanted", "passes"),
    [
        (RUNS, {}, True),
        (RUNS, {"type": ["container"]}, True),
        (RUNS, {"type": ["image", "container"]}, True),
        (RUNS, {"type": ["image"]}, False),
        (RUNS, {"event": ["exec_start"]}, True),
        (RUNS, {"event": ["exec_start: sh -c true"]}, True),
        (RUNS, {"event": ["exec"]}, False),
        (RUNS, {"container": ["web"]}, True),
        (RUNS, {"container": ["cccc"]}, True),
        (RUNS, {"container": ["other"]}, False),
        (RUNS, {"label": ["a=b"]}, True),
        (RUNS, {"label": ["a"]}, True),
        (RUNS, {"label": ["a=c"]}, False),
        (RUNS, {"label": ["a=b", "none"]}, False),
        (RUNS, {"image": ["localhost:5000/shop/web:2"]}, True),
        (RUNS, {"image": ["localhost:5000/shop/web"]}, True),
        (RUNS, {"image": ["localhost"]}, False),
        (RUNS, {"scope": ["local"]}, True),
        (RUNS, {"scope": ["swarm"]}, False),
        (RUNS, {"volume": ["web"]}, False),
        (RUNS, {"daemon": ["x"]}, False),
        (RUNS, {"type": ["container"], "container": ["other"]}, False),
        (TAGGED, {"image": ["busybox"]}, True),
        (TAGGED, {"image": ["busybox:1"]}, True),
        (TAGGED, {"image": ["sha256:1"]}, True),
        (TAGGED, {"image": ["busybox:2"]}, False),
        (TAGGED, {"container": ["busybox"]}, False),
        (MADE, {"volume": ["data"]}, True),
        (MADE, {"volume": ["other"]}, False),
        (MADE, {"network": ["data"]}, False),
    ],
)
def test_filters_of_events(one: Any, wanted: dict[str, list[str]], passes: bool) -> None:
    assert filters.event(one, wanted) is passes
