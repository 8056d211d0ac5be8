"""The figures are Prometheus': its own checker finds nothing wrong with them."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests import promtool
from tests.engine import CACHE, IMAGE, EngineProcess

pytestmark = pytest.mark.root

METRICS = {
    "resourceMetrics": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "x"}}]},
            "scopeMetrics": [
                {
                    "metrics": [
                        {
                            "name": "http.server.requests",
                            "unit": "{request}",
                            "description": "Requests.",
                            "sum": {
                                "aggregationTemporality": 2,
                                "isMonotonic": True,
                                "dataPoints": [
                                    {
                                        "asInt": "7",
                                        "attributes": [
                                            {"key": "a.b", "value": {"stringValue": 'q"\n'}},
                                            {"key": "a-b", "value": {"stringValue": "2"}},
                                        ],
                                    }
                                ],
                            },
                        },
                        {
                            "name": "http.server.duration",
                            "unit": "s",
                            "histogram": {
                                "aggregationTemporality": 2,
                                "dataPoints": [
                                    {
                                        "count": "3",
                                        "sum": 1.5,
                                        "explicitBounds": [0.1, 1.0],
                                        "bucketCounts": ["1", "1", "1"],
                                    }
                                ],
                            },
                        },
                        {"name": "queue 长度", "gauge": {"dataPoints": [{"asDouble": 2.5}]}},
                        {"name": "http.server.requests", "gauge": {"dataPoints": [{"asInt": 1}]}},
                    ]
                }
            ],
        }
    ]
}


def check(page: str) -> None:
    checker = promtool.program(CACHE)
    if not checker.exists():
        pytest.skip("promtool could not be fetched")
    done = subprocess.run(
        [checker, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing(engine: EngineProcess) -> None:
    engine.ok("POST", "/gemel/traffic")
    engine.ok("POST", "/networks/create", {"Name": "figures"})
    serve = "while :; do printf 'HTTP/1.0 503 no\\r\\n\\r\\n' | nc -l -p 80 >/dev/null; done"
    ask = "while :; do wget -q -O - http://server; sleep 0.2; done"
    for name, script, runtime in (
        ("server", serve, "microvm"),
        ("client", ask, "container"),
    ):
        body = {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": "figures", "Runtime": runtime},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        }
        engine.ok("POST", f"/containers/create?name={name}", body)
        engine.ok("POST", f"/containers/{name}/start")
    gateway = engine.ok("GET", "/networks/figures")["IPAM"]["Config"][0]["Gateway"]
    text = json.dumps(METRICS)
    send = (
        f"wget -q -O - --header Content-Type:application/json --post-data '{text}' "
        f"http://{gateway}:4318/v1/metrics"
    )
    assert engine.gemel("exec", "client", "sh", "-c", send).stdout == "{}"
    wanted = (
        'gemel_call_duration_seconds_bucket{source="client",target="server",protocol="http",'
        'code="503",le="+Inf"}',
        "gemel_instance_healthy{",
        "gemel_instance_restarts_total{",
        "gemel_instance_disk_written_bytes_total{",
        'otel_http_server_requests_total{service="x",a_b="q\\"\\n"} 7',
        'otel_http_server_duration_seconds_bucket{service="x",le="1"} 2',
        'otel_queue___{service="x"} 2.5',
    )
    deadline = time.monotonic() + 120
    while missing := [one for one in wanted if one not in (page := engine.gemel("metrics").stdout)]:
        assert time.monotonic() < deadline, f"{missing} in\n{page}"
        time.sleep(0.5)
    check(page)
    for name in ("client", "server"):
        engine.ok("DELETE", f"/containers/{name}?force=1")
    engine.ok("DELETE", "/networks/figures")
    engine.ok("DELETE", "/gemel/traffic")
