"""Services that a program outside runs, and language models, against a real engine."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

FILE = """\
name: cloudshop
services:
  db:
    provider:
      type: cloudy
      options: {size: 3}
    depends_on: [seed]
  seed:
    image: IMAGE
    command: sleep 600
    stop_grace_period: 0s
  app:
    image: IMAGE
    command: sleep 600
    stop_grace_period: 0s
    depends_on: [db]
  other:
    image: IMAGE
    command: sleep 600
    stop_grace_period: 0s
    depends_on: [seed]
"""
PROGRAM = """\
#!/bin/sh
say() { printf '{"type": "%s", "message": "%s"}\\n' "$1" "$2"; }
echo "$@" >> "$LOG"
case "$2 $3" in
  "metadata ") echo '{"description": "a cloud", "up": {"parameters": [{"name": "size"}]},
    "stop": {}}' ;;
  *" up") say info "making a database"; say setenv "URL=$(cat "$LOG.url")"; RUN ;;
esac
"""


class Cloud:
    """A folder with the Compose file, and the program ``cloudy`` in the PATH of gemel."""

    def __init__(self, engine: EngineProcess, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.log = folder / "log"
        self.env = {"LOG": str(self.log), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        (folder / "bin").mkdir()
        (folder / "log.url").write_text("cloud://one")
        (folder / "compose.yaml").write_text(FILE.replace("IMAGE", IMAGE))
        self.program()

    def program(self, run: str = ":") -> None:
        path = self.folder / "bin/cloudy"
        path.write_text(PROGRAM.replace("RUN", run))
        path.chmod(0o755)

    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.gemel(*args, cwd=self.folder, env=self.env, check=check)

    def calls(self) -> list[str]:
        """What the program was called with since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if line != "compose metadata"]

    def ids(self) -> dict[str, str]:
        """Service → id of its container."""
        lines = self("ps", "-a", "--format", "json").stdout.splitlines()
        return {row["Service"]: row["ID"] for row in map(json.loads, lines)}

    def environment(self, service: str) -> list[str]:
        return self("exec", "-T", service, "env").stdout.splitlines()


@pytest.fixture
def cloud(engine: EngineProcess, tmp_path: Path) -> Iterator[Cloud]:
    one = Cloud(engine, tmp_path)
    yield one
    one.program()
    one("down", "-v", "-t", "0")
    found = [c["Names"] for c in engine.ok("GET", "/containers/json?all=1")]
    assert found == []


def test_a_provider_has_its_turn_in_up_stop_and_down_and_who_depends_on_it_its_variables(
    cloud: Cloud,
) -> None:
    plan = cloud("up", "--dry-run").stdout
    assert "run provider: db (provider cloudy)" in plan and cloud.calls() == []
    shown = cloud("up", "-d").stderr
    order = ["cloudshop-seed-1  Started", "Service db  Creating", "making a database",
             "Service db  Created", "cloudshop-app-1  Creating"]  # fmt: skip
    places = [shown.index(words) for words in order]
    assert places == sorted(places)
    assert cloud.calls() == ["compose --project-name=cloudshop up --size=3 db"]
    assert "DB_URL=cloud://one" in cloud.environment("app")
    assert not [line for line in cloud.environment("other") if line.startswith("DB_")]
    assert set(cloud.ids()) == {"app", "seed", "other"}
    once = cloud("run", "--rm", "--no-deps", "app", "env").stdout
    assert "DB_URL=cloud://one" in once and cloud.calls() == []
    cloud("stop", "-t", "0")
    assert cloud.calls() == ["compose --project-name=cloudshop stop db"]
    assert "run provider: db" in cloud("down", "--dry-run").stdout and cloud.calls() == []
    shown = cloud("down").stderr
    order = ["Container cloudshop-app-1  Removed", "Service db  Removing", "Service db  Removed",
             "Container cloudshop-seed-1  Removing"]  # fmt: skip
    places = [shown.index(words) for words in order]
    assert places == sorted(places)
    assert cloud.calls() == ["compose --project-name=cloudshop down db"]


def test_another_answer_makes_only_who_depends_on_it_anew(cloud: Cloud) -> None:
    cloud("up", "-d")
    first = cloud.ids()
    cloud("up", "-d", "--no-deps", "app")
    assert cloud.ids() == first
    assert cloud("up", "--dry-run").stdout.splitlines() == ["run provider: db (provider cloudy)"]
    (cloud.folder / "log.url").write_text("cloud://two")
    cloud.calls()
    cloud("up", "-d", "app")
    second = cloud.ids()
    assert second["app"] != first["app"]
    assert {**second, "app": ""} == {**first, "app": ""}
    assert len(cloud.calls()) == 1
    assert "DB_URL=cloud://two" in cloud.environment("app")


def test_one_that_fails_takes_back_what_was_made(cloud: Cloud) -> None:
    cloud.program('say error "no money"')
    done = cloud("up", "-d", check=False)
    assert done.returncode == 1
    assert "error: compose.yaml:4:5: cloudy: no money" in done.stderr
    assert cloud.ids() == {}
    networks = [one["Name"] for one in cloud.engine.ok("GET", "/networks")]
    assert "cloudshop_default" not in networks


def test_one_that_is_not_there_is_refused_before_anything_starts(cloud: Cloud) -> None:
    (cloud.folder / "bin/cloudy").unlink()
    done = cloud("up", "-d", check=False)
    assert done.returncode == 1
    assert "compose.yaml:5:13: services.db.provider.type is refused: there is no provider" in (
        done.stderr
    )
    assert cloud.ids() == {}
    assert cloud("config", "--lint", check=False).returncode == 1
    assert "provider:" in cloud("config").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it(cloud: Cloud, number: int) -> None:
    cloud.program('echo $$ > "$LOG.pid"; sleep 600')
    process = subprocess.Popen(
        [sys.executable, "-m", "gemel", "up", "-d", "--no-deps", "db"],
        env={**cloud.engine.env, **cloud.env},
        cwd=cloud.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pid = cloud.folder / "log.pid"
    try:
        cloud.engine.settle(lambda: pid.exists() and pid.read_text().strip(), "it was not called")
        process.send_signal(number)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    cloud.engine.settle(lambda: not _lives(stat), "it goes on")


def _lives(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


MODELS = """\
name: modelshop
services:
  app:
    image: IMAGE
    command: sleep 600
    stop_grace_period: 0s
    models: {llm: {endpoint_var: AT, model_var: NAME}, inside: }
    depends_on: [server]
  server:
    image: IMAGE
    command: httpd -f -p 80 -h /srv
    stop_grace_period: 0s
    configs: [{source: list, target: /srv/v1/models}]
models:
  llm: {model: ai/small}
  inside: {model: mine, x-gemel: {endpoint: "http://server/v1"}}
configs: {list: {content: "mine is served"}}
"""
PLUGIN = """\
#!/bin/sh
case "$1" in
  ls) echo '[{"tags": ["ai/small"]}]' ;;
  status) echo '{"endpoint": "http://host.docker.internal:PORT/engines/v1/"}' ;;
esac
"""


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it is a test's."""


@pytest.fixture
def served() -> Iterator[int]:
    """The port of an HTTP server on the host."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(30)


def test_services_ask_the_models_that_they_are_told_of(
    engine: EngineProcess, tmp_path: Path, served: int
) -> None:
    folder = tmp_path / "docker/cli-plugins"
    folder.mkdir(parents=True)
    (tmp_path / "compose.yaml").write_text(MODELS.replace("IMAGE", IMAGE))
    env = {"DOCKER_CONFIG": str(tmp_path / "docker")}
    refused = engine.gemel("up", "-d", cwd=tmp_path, env=env, check=False)
    assert refused.returncode == 1
    assert "compose.yaml:7:14: services.app.models.llm is refused" in refused.stderr
    assert "x-gemel" in refused.stderr and "model plugin" in refused.stderr
    assert engine.ok("GET", "/containers/json?all=1") == []
    plugin = folder / "docker-model"
    plugin.write_text(PLUGIN.replace("PORT", str(served)))
    plugin.chmod(0o755)
    try:
        up = engine.gemel("up", "-d", cwd=tmp_path, env=env)
        assert "Model llm  Configured" in up.stderr and "Model inside" not in up.stderr
        script = "echo $NAME; wget -qO- ${AT}models; echo; echo $INSIDE_MODEL;"
        script += "wget -qO- $INSIDE_URL/models"
        answer = _until_answered(engine, tmp_path, script)
        lines = ["ai/small", "asked for /engines/v1/models", "mine", "mine is served"]
        assert answer == lines
        again = engine.gemel("up", "--dry-run", cwd=tmp_path, env=env)
        assert again.stdout.splitlines() == ["configure model: llm (ai/small, by docker model)"]
    finally:
        engine.gemel("down", "-t", "0", cwd=tmp_path, env=env)


def _until_answered(engine: EngineProcess, folder: Path, script: str) -> list[str]:
    """Output of a script in ``app`` once the server beside it takes connections."""
    deadline = time.monotonic() + 60
    while True:
        done = engine.gemel("exec", "-T", "app", "sh", "-c", script, cwd=folder, check=False)
        if done.returncode == 0 or time.monotonic() > deadline:
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout.splitlines()
        time.sleep(0.2)


def test_a_user_namespace_mode_is_as_in_dockerd_without_remapping(engine: EngineProcess) -> None:
    for mode, warned in (("", False), ("host", False), ("private", True)):
        body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"UsernsMode": mode}}
        made = engine.ok("POST", "/containers/create", body)
        assert bool(made["Warnings"]) == warned, made
        assert engine.call("DELETE", f"/containers/{made['Id']}")[0] == 204
