"""``x-gemel`` of a service."""

from __future__ import annotations

from typing import Any

import pytest

from gemel.compose import extension
from gemel.compose.project import Service
from gemel.model.image import HealthConfig

SECOND = 1_000_000_000


def _made(check: dict[str, Any], base: HealthConfig | None = None) -> HealthConfig:
    value = {"healthcheck": check}
    assert list(extension.problems(value)) == []
    made = extension.health(Service("web", {"x-gemel": value}), base)
    assert made is not None
    return made


def test_checks() -> None:
    assert _made({"http": "/a", "port": 8080}).test == ["HTTP", "8080", "/a"]
    assert _made({"http": "/", "port": "80", "expect": [200, 204]}).test == [
        "HTTP", "80", "/", "200,204",
    ]  # fmt: skip
    assert _made({"tcp": 5432}).test == ["TCP", "5432"]
    assert _made({"grpc": 9000, "service": "a.B"}).test == ["GRPC", "9000", "a.B"]
    base = HealthConfig(test=["CMD", "x"], interval=7, retries=4, timeout=9)
    made = _made({"tcp": 1, "interval": "2s", "start_period": "1m"}, base)
    assert (made.interval, made.retries, made.timeout) == (2 * SECOND, 4, 9)
    assert made.start_period == 60 * SECOND
    assert extension.health(Service("web", {}), base) is base


def test_labels_and_drain() -> None:
    service = Service("web", {"x-gemel": {"restart-on-unhealthy": True, "drain": "1.5s"}})
    assert extension.labels(service) == {"gemel.restart-on-unhealthy": "true"}
    listed = Service("web", {"deploy": {"endpoint_mode": "dnsrr"}})
    assert extension.labels(listed) == {"gemel.endpoint-mode": "dnsrr"}
    assert extension.labels(Service("web", {"deploy": {"endpoint_mode": "vip"}})) == {}
    quiet = Service("web", {"x-gemel": {"otel": False}})
    assert extension.labels(quiet) == {"gemel.otel": "false"}
    assert extension.labels(Service("web", {"x-gemel": {"otel": True}})) == {}
    assert [words for _, words in extension.problems({"otel": "maybe"})] == [
        "otel must be true or false"
    ]
    assert extension.drain(service) == 1.5
    assert extension.drain(Service("web", {})) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "must be a mapping"),
        ({"healthchek": {}}, 'did you mean "healthcheck"?'),
        ({"healthcheck": None}, "must be a mapping"),
        ({"healthcheck": {}}, "needs one of http, tcp and grpc"),
        ({"healthcheck": {"tcp": 1, "grpc": 2}}, "needs one of"),
        ({"healthcheck": {"http": "/"}}, 'http needs the key "port"'),
        ({"healthcheck": {"http": "x", "port": 80}}, "http must be a path"),
        ({"healthcheck": {"tcp": 0}}, "tcp must be a port"),
        ({"healthcheck": {"tcp": True}}, "tcp must be a port"),
        ({"healthcheck": {"tcp": 1, "expect": 200}}, "expect is of http checks only"),
        ({"healthcheck": {"http": "/", "port": 1, "expect": [99]}}, "expect must be"),
        ({"healthcheck": {"tcp": 1, "interval": "soon"}}, "interval must be a duration"),
        ({"healthcheck": {"tcp": 1, "retries": -1}}, "retries must be"),
        ({"restart-on-unhealthy": "often"}, "true or false"),
        ({"drain": "x"}, "drain must be a duration"),
    ],
)
def test_what_is_wrong_is_told(value: Any, words: str) -> None:
    assert words in "\n".join(text for _, text in extension.problems(value))
