"""One request through four services, with and without OpenTelemetry, is one trace."""

from __future__ import annotations

import json
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from gemel.observe.tracing import otlp
from tests.engine import EngineProcess

pytestmark = pytest.mark.root
Json = dict[str, Any]

#: Forwards without headers: knows nothing of traces.
GATE = r"""
import http.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        one = http.client.HTTPConnection("orders", 80, timeout=60)
        one.request("GET", self.path)
        body = one.getresponse().read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""

#: OpenTelemetry's own SDK, set up by nothing but the environment.
SDK = r"""
import http.client, logging, os, sys, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

kind, target = sys.argv[1:]
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

provider = TracerProvider(resource=Resource.create())
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        context = propagate.extract({name.lower(): value for name, value in self.headers.items()})
        with tracer.start_as_current_span(
            f"serve {self.path}", context, SpanKind.SERVER, {"url.path": self.path}
        ) as span:
            body = b"stock"
            if target != "-":
                body = self.ask()
            elif "fail" in self.path:
                span.set_status(Status(StatusCode.ERROR, "sold out"))
            self.send_response(503 if b"sold out" in body or "fail" in self.path else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def ask(self):
        with tracer.start_as_current_span("ask stock", kind=SpanKind.CLIENT):
            headers = {}
            propagate.inject(headers)
            one = http.client.HTTPConnection(target, 80, timeout=60)
            one.request("GET", self.path, headers=headers)
            return one.getresponse().read()

ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""

COMPOSE = """\
services:
  gate:
    image: test/busybox
    command: [{python}, /scripts/gate.py]
    volumes: &volumes [{volumes}]
  orders:
    image: test/busybox
    command: [{python}, /scripts/sdk.py, grpc, stock]
    environment: &environment {{PYTHONPATH: {packages}, PYTHONDONTWRITEBYTECODE: "1"}}
    volumes: *volumes
  stock:
    image: test/busybox
    runtime: microvm
    command: [{python}, /scripts/sdk.py, http, "-"]
    environment: *environment
    volumes: *volumes
  quiet:
    image: test/busybox
    x-gemel: {{otel: false}}
    command: [sh, -c, "echo told=$$OTEL_EXPORTER_OTLP_ENDPOINT; sleep 10000"]
"""


@pytest.fixture(scope="module")
def shop(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project's folder; its services run."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "gate.py").write_text(GATE)
    (folder / "sdk.py").write_text(SDK)
    packages = sysconfig.get_path("purelib")
    home = sys.base_prefix
    shared = dict.fromkeys(["/lib", "/lib64", "/usr", home, packages])
    volumes = [f"{path}:{path}:ro" for path in shared] + [f"{folder}:/scripts:ro"]
    (folder / "compose.yaml").write_text(
        COMPOSE.format(python=f"{home}/bin/python3", packages=packages, volumes=", ".join(volumes))
    )
    engine.gemel("traces", "--all")  # begins the recording
    engine.gemel("-p", "shop", "up", "-d", cwd=folder)
    yield folder
    engine.gemel("-p", "shop", "down", "-t", "1", cwd=folder)


def ask(engine: EngineProcess, path: str) -> None:
    """A request from the host, until all services listen."""
    address = engine.ok("GET", "/containers/shop-gate-1/json")["NetworkSettings"]["Networks"]
    url = f"http://{next(iter(address.values()))['IPAddress']}{path}"
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                if answer.read() == b"stock":
                    return
        except OSError:
            pass
        assert time.monotonic() < deadline, engine.gemel("-p", "shop", "logs").stdout
        time.sleep(0.5)


def until(check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def traces(engine: EngineProcess, *args: str) -> list[Json]:
    done = engine.gemel("-p", "shop", "traces", "--format", "json", *args)
    return [json.loads(line) for line in done.stdout.splitlines()]


def whole(engine: EngineProcess, path: str, spans: int) -> Json:
    """The newest trace of a path, once all its spans have come."""

    def look() -> Json | None:
        for one in reversed(traces(engine)):
            if one["Root"] == f"GET {path}" and one["SpanCount"] >= spans:
                found: Json = engine.ok("GET", f"/gemel/traces/{one['Id']}")
                return found
        return None

    found: Json = until(look)
    return found


def shape(trace: Json) -> list[tuple[int, str, str, str, bool]]:
    """Depth, service, source, kind, inferred of each span."""
    depth: dict[str, int] = {}
    found = []
    for span in trace["Spans"]:
        depth[span["Id"]] = depth.get(span["ParentId"], -1) + 1
        fields = ("Service", "Source", "Kind", "Inferred")
        found.append((depth[span["Id"]], *(span[field] for field in fields)))
    return found


def test_calls_and_spans_are_one_trace(engine: EngineProcess, shop: Path) -> None:
    ask(engine, "/warm")
    ask(engine, "/one")
    trace = whole(engine, "/one", 6)
    assert shape(trace) == [
        (0, "gate", "observed", "server", False),
        (1, "orders", "observed", "server", True),  # nothing names its caller
        (2, "orders", "otlp", "server", True),
        (3, "orders", "otlp", "client", False),
        (4, "stock", "observed", "server", False),  # traceparent does
        (5, "stock", "otlp", "server", False),
    ]
    assert trace["Services"] == ["gate", "orders", "stock"]
    assert (trace["Errors"], trace["Inferred"]) == (0, True)
    drawn = engine.gemel("-p", "shop", "trace", trace["Id"][:8]).stdout
    assert "└ orders  GET /one ~" in drawn
    assert "\x1b" not in drawn
    newest = engine.gemel("-p", "shop", "trace", "--format", "json").stdout
    assert json.loads(newest)["Spans"]


def test_failures_are_found(engine: EngineProcess, shop: Path) -> None:
    ask(engine, "/fail")
    trace = whole(engine, "/fail", 6)
    last = trace["Spans"][-1]
    assert last["Error"] and last["Attributes"]["error.message"] == "sold out"
    assert trace["Errors"] >= 2  # the call with status 503, and the span
    assert trace["Id"] in {one["Id"] for one in traces(engine, "--errors", "--service", "stock")}
    assert not traces(engine, "--slower", "1h")
    shown = engine.gemel("-p", "shop", "trace", trace["Id"]).stdout
    assert "sold out" in shown


def test_who_wants_none_is_told_of_none(engine: EngineProcess, shop: Path) -> None:
    logs = ("-p", "shop", "logs", "--no-log-prefix", "quiet")
    assert until(lambda: engine.gemel(*logs).stdout).startswith("told=\n")
    told = engine.gemel("-p", "shop", "exec", "orders", "env").stdout
    assert "OTEL_SERVICE_NAME=orders" in told
    env = engine.ok("GET", "/containers/shop-orders-1/json")["Config"]["Env"]
    assert not [one for one in env if one.startswith("OTEL_")]
    again = engine.gemel("-p", "shop", "up", "-d", cwd=shop).stderr
    assert "Recreate" not in again


class Collector(ThreadingHTTPServer):
    """Takes OTLP as a collector does; it decodes with OpenTelemetry's own messages."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Collecting)
        self.got: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.busy = 1
        """How often it asks for patience first."""


class _Collecting(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        busy, self.server.busy = self.server.busy, 0
        if not busy:
            assert self.path == "/v1/traces"
            self.server.got.append(otlp.decode("traces", body, as_json=True))
        self.send_response(503 if busy else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_export(engine: EngineProcess, shop: Path) -> None:
    ask(engine, "/export")
    trace = whole(engine, "/export", 6)
    with Collector() as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_port}"
        engine.gemel("-p", "shop", "trace", "export", trace["Id"], "--otlp", url)
        collector.shutdown()
    spans = {
        span.span_id.hex(): (group.resource.attributes, span)
        for request in collector.got
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    }
    assert {span.trace_id.hex() for _, span in spans.values()} == {trace["Id"]}
    for wanted in trace["Spans"]:
        resource, span = spans[wanted["Id"]]
        assert span.parent_span_id.hex() == wanted["ParentId"]
        assert span.name == wanted["Name"]
        names = {item.key: item.value.string_value for item in resource}
        assert names["service.name"] == wanted["Service"]
    refused = engine.gemel("trace", "export", "--otlp", "http://127.0.0.1:1", check=False)
    assert refused.returncode != 0
    assert "no collector answers at 127.0.0.1:1" in refused.stderr


def test_hostile_senders_stop_nothing(engine: EngineProcess, shop: Path) -> None:
    script = (
        "for n in 1 2 3; do head -c 20000 /dev/urandom | nc -w 2 $T 4317 >/dev/null; "
        "printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' | nc -w 2 $T 4318 >/dev/null; "
        "printf 'POST /v1/traces HTTP/1.1\\r\\nContent-Length: 99999999999\\r\\n\\r\\n' "
        "| nc -w 2 $T 4318 >/dev/null; done; "
        'POST="wget -q -O - http://$T:4318/v1/traces --header Content-Type:application/json"; '
        "$POST --post-data '[5]'; $POST --post-data '{}'"
    )
    script = "T=${OTEL_EXPORTER_OTLP_ENDPOINT#http://}; T=${T%:*}; " + script
    done = engine.gemel("-p", "shop", "exec", "gate", "sh", "-c", script, timeout=120)
    assert done.stdout == "{}"
    counts = engine.ok("GET", "/gemel/otlp/counts")
    assert counts["refused"] > 0
    ask(engine, "/after")
    whole(engine, "/after", 6)
