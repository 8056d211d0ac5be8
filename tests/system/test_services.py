"""What gemel adds to a service: lint before a start, outer checks, updates, the inner loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import EngineProcess
from tests.system.test_compose_cli import App

pytestmark = pytest.mark.root


@pytest.fixture
def app(engine: EngineProcess, tmp_path: Path) -> Iterator[App]:
    """A project that is gone after the test."""
    one = App(engine, tmp_path)
    yield one
    engine.gemel("-p", one.name, "down", "-v", "-t", "1", "--remove-orphans", cwd=Path("/"))
    assert one.left() == []


def test_what_is_not_carried_out_is_told_before_anything_starts(app: App) -> None:
    text = """
services:
  web:
    image: IMAGE
    command: ["sh", "-c", "LOOP"]
    annotations: {a: b}
    ipc: host
    stop_grace_period: 1s
"""
    app.file(text)
    started = app("up", "-d")
    assert "compose.yaml:7:5: services.web.annotations is ignored" in started.stderr
    app("down", "-t", "1")
    linted = app("config", "--lint")
    assert "services.web.annotations is ignored" in linted.stdout
    assert "ipc" not in linted.stdout

    refused = app("up", "-d", "--runtime", "web=microvm", check=False)
    assert refused.returncode != 0
    assert "compose.yaml:8:5: services.web.ipc is refused in a micro VM" in refused.stderr
    assert app.left() == []
    app.file(text.replace("IMAGE", "IMAGE\n    runtime: microvm"))
    linted = app("config", "--lint", check=False)
    assert linted.returncode != 0
    assert "services.web.ipc is refused" in linted.stdout


CHECKED = """
services:
  web:
    image: IMAGE
    runtime: RUNTIME
    command: ["sh", "-c", "mkdir /w; httpd -p 8080 -h /w; sleep 1; echo ok >/w/healthz; LOOP"]
    stop_grace_period: 1s
    x-gemel:
      healthcheck: {http: /healthz, port: 8080, expect: 200, interval: 300ms, retries: 60}
      restart-on-unhealthy: true
  after:
    image: IMAGE
    command: ["sh", "-c", "nslookup web | tail -n 3; LOOP"]
    depends_on: {web: {condition: service_healthy}}
"""


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_a_service_is_checked_from_outside(app: App, runtime: str) -> None:
    app.file(CHECKED.replace("RUNTIME", runtime))
    started = app("up", "-d")
    assert f"Container {app.name}-web-1  Healthy" in started.stderr
    web = app.engine.ok("GET", f"/containers/{app.name}-web-1/json")
    assert web["Config"]["Healthcheck"]["Test"] == ["HTTP", "8080", "/healthz", "200"]
    log = web["State"]["Health"]["Log"]
    assert log[-1]["Output"] == "HTTP status 200"


def test_an_unhealthy_one_is_started_again(app: App) -> None:
    text = CHECKED.replace("RUNTIME", "container").replace(
        "retries: 60", "retries: 3, start_period: 60s"
    )
    app.file(text)
    app("up", "-d", "--wait", "web")
    name = f"{app.name}-web-1"
    before = app.engine.ok("GET", f"/containers/{name}/json")["State"]["StartedAt"]
    app("exec", "-T", "web", "rm", "/w/healthz")
    app.engine.wait_for("restarting", name=name, timeout=60)
    app.engine.wait_for("healthy", name=name, timeout=60)
    after = app.engine.ok("GET", f"/containers/{name}/json")
    assert after["State"]["StartedAt"] != before
    assert after["RestartCount"] >= 1
