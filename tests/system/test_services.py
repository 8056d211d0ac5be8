"""What gemel adds to a service: lint before a start, outer checks, updates, the inner loop."""

from __future__ import annotations

import http.client
import json
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import EngineProcess
from tests.imagestore import free_port
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


def test_a_service_is_checked_from_outside(app: App) -> None:
    app.file(CHECKED.replace("RUNTIME", "container"))
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
    # "restarting" is a state of a moment; that it was started anew stays
    app.engine.settle(
        lambda: app.engine.ok("GET", f"/containers/{name}/json")["State"]["StartedAt"] != before,
        "it is not started again",
        timeout=120,
    )
    app.engine.wait_for("healthy", name=name, timeout=120)
    assert app.engine.ok("GET", f"/containers/{name}/json")["RestartCount"] >= 1


#: Requests one after the other, each on a connection of its own, until standard input ends. Told
#: a name server, the address is asked for before each request. Prints every new answer.
REQUESTS = """
import json, select, sys, time, urllib.request
import dns.resolver
server, port = sys.argv[1:]
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers = [server] if server else []
answers, failures = {}, []
while not select.select([sys.stdin], [], [], 0.005)[0]:
    try:
        host = "127.0.0.1"
        if server:
            host = resolver.resolve("web.", lifetime=20)[0].to_text()
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=20) as answer:
            text = answer.read().decode().strip()
        if text not in answers:
            print(text, flush=True)
        answers[text] = answers.get(text, 0) + 1
    except (OSError, dns.exception.DNSException) as error:
        if answers:  # it is up
            failures.append(f"{time.monotonic():.2f}: {host}: {error!r}")
print(json.dumps({"answers": answers, "failures": failures}))
"""


class Load:
    """A client that makes requests all the time; from within an instance, if one is named."""

    def __init__(self, app: App, *, inside: str = "", port: int = 80) -> None:
        enter, server = [], ""
        if inside:
            info = app.engine.ok("GET", f"/containers/{app.name}-{inside}-1/json")
            enter = ["nsenter", "-t", str(info["State"]["Pid"]), "-n"]
            server = info["NetworkSettings"]["Gateway"]
        self._process = subprocess.Popen(
            [*enter, sys.executable, "-c", REQUESTS, server, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answers: dict[str, int] = {}
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        return self

    def seen(self, text: str) -> None:
        """Waits for a new answer, which must be this one."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], 120)[0]
        assert self._process.stdout.readline().strip() == text

    def __exit__(self, *_: object) -> None:
        try:
            rest = self._process.communicate("", timeout=120)[0]
        finally:
            self._process.kill()
        result = json.loads(rest.splitlines()[-1])
        self.answers, self.failures = result["answers"], result["failures"]


ROLLED = """
services:
  client: {image: IMAGE, command: ["sh", "-c", "LOOP"], stop_grace_period: 1s}
  web:
    image: IMAGE
    runtime: RUNTIME
    scale: COUNT
    command:
      - sh
      - -c
      - mkdir /w; echo VERSION >/w/index.html; sleep 0.5; httpd -p 80 -h /w; LOOP
    ports: [PORTS]
    expose: ["80"]
    stop_grace_period: 1s
    x-gemel: {drain: 3s}
"""


def _published(app: App) -> tuple[str, int]:
    host, _, port = app("port", "web", "80").stdout.strip().rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_an_update_of_one_replica_loses_no_request(app: App, runtime: str) -> None:
    text = (
        ROLLED.replace("RUNTIME", runtime).replace("COUNT", "1").replace("PORTS", '"127.0.0.1::80"')
    )
    if runtime == "microvm":  # and what its health check from outside says is waited for
        check = "healthcheck: {http: /, port: 80, interval: 200ms, retries: 100}"
        text = text.replace("drain: 3s", f"drain: 3s, {check}")
    app.file(text.replace("VERSION", "one"))
    app("up", "-d")
    address = _published(app)
    before = app.engine.ok("GET", f"/containers/{app.name}-web-1/json")["Id"]
    with Load(app, port=address[1]) as load, Load(app, inside="client") as inner:
        load.seen("one")
        inner.seen("one")
        app.file(text.replace("VERSION", "two"))
        app("update", "web")
        load.seen("two")
        inner.seen("two")
    assert (load.failures, inner.failures) == ([], [])
    assert _published(app) == address
    assert sorted(app.states()) == [f"{app.name}-client-1", f"{app.name}-web-1"]
    assert app.engine.ok("GET", f"/containers/{app.name}-web-1/json")["Id"] != before


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_a_changed_up_rolls_over_two_replicas(app: App, runtime: str) -> None:
    shared = free_port()  # one host port, of both replicas
    ports = f'"127.0.0.1:{shared}:80"'
    text = ROLLED.replace("RUNTIME", runtime).replace("COUNT", "2").replace("PORTS", ports)
    text += "    deploy: {update_config: {order: stop-first}}\n"
    # a replica that is not checked is found by its name before its server listens
    check = "healthcheck: {http: /, port: 80, interval: 200ms, retries: 100}"
    text = text.replace("drain: 3s", f"drain: 3s, {check}")
    app.file(text.replace("VERSION", "one"))
    app("up", "-d", "--wait")
    with Load(app, inside="client") as load, Load(app, port=shared) as outer:
        load.seen("one")
        outer.seen("one")
        app.file(text.replace("VERSION", "two"))
        app("up", "-d")
        load.seen("two")
        outer.seen("two")
    assert (load.failures, outer.failures) == ([], [])
    assert sorted(app.states()) == [f"{app.name}-{n}" for n in ("client-1", "web-1", "web-2")]


def test_up_in_the_foreground_rolls_over_before_it_follows(app: App) -> None:
    text = ROLLED.replace("RUNTIME", "container").replace("COUNT", "2").replace("PORTS", "")
    text += """
    healthcheck: {test: "netstat -ltn | grep -q ':80 '", interval: 200ms, retries: 100}
    deploy: {update_config: {order: start-first}}
"""
    app.file(text.replace("VERSION", "one"))
    app("up", "-d", "--wait")
    with Load(app, inside="client") as load:
        load.seen("one")
        app.file(text.replace("VERSION", "two"))
        up = app.popen("up")
        load.seen("two")
        assert up.stdout is not None
        while (line := up.stdout.readline()) and "Attaching to client-1, web-1, web-2" not in line:
            pass
        assert line
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=120)
    assert load.failures == []
    assert set(app.states().values()) == {"exited"}


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_an_update_that_fails_is_rolled_back(app: App, runtime: str) -> None:
    text = ROLLED.replace("RUNTIME", runtime).replace("COUNT", "2").replace("PORTS", "")
    text += """
    healthcheck: {test: "test -e /w/index.html", interval: 500ms, retries: 100}
    deploy: {update_config: {order: start-first, failure_action: rollback}}
"""
    app.file(text.replace("VERSION", "one"))
    app("up", "-d", "--wait")
    ids = {e["Id"] for e in app.engine.ok("GET", "/containers/json") if app.name in e["Names"][0]}
    # fails from the first moment on, also before the page is there
    bad = text.replace("VERSION", "two").replace("test -e", "grep one")
    app.file(bad.replace("retries: 100", "retries: 5"))
    with Load(app, inside="client") as load:
        load.seen("one")
        failed = app("up", "-d", check=False)
    assert failed.returncode != 0
    assert "the update of web has failed" in failed.stderr
    assert "is unhealthy" in failed.stderr
    assert (load.failures, list(load.answers)) == ([], ["one"])
    left = {
        e["Id"] for e in app.engine.ok("GET", "/containers/json?all=1") if app.name in e["Names"][0]
    }
    assert left == ids
    assert set(app.states().values()) == {"running"}


WATCHED = """
services:
  web:
    image: IMAGE
    runtime: RUNTIME
    command: ["sh", "-c", "mkdir -p /w; date +%s%N >/started; httpd -p 80 -h /w; LOOP"]
    ports: ["127.0.0.1::80"]
    stop_grace_period: 1s
    develop:
      watch:
        - {path: ./site, target: /w, action: sync, initial_sync: true, ignore: ["*.tmp"]}
        - path: ./site/hook
          target: /w/hook
          action: sync+exec
          exec: {command: [sh, -c, "cp /w/hook /w/copied; echo hooked"]}
        - {path: ./again, action: restart}
"""


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_saved_files_are_carried_into_a_running_service(app: App, runtime: str) -> None:
    app.file(WATCHED.replace("RUNTIME", runtime))
    site = app.folder / "site"
    (site / "deep").mkdir(parents=True)
    (app.folder / "again").mkdir()
    (site / "index.html").write_text("one")
    (site / "deep" / "page").write_text("page")
    (site / "no.tmp").write_text("never")
    watching = app.popen("watch")

    said: list[str] = []
    stdout = watching.stdout
    assert stdout is not None
    reader = threading.Thread(target=lambda: said.extend(stdout), daemon=True)
    reader.start()

    def expect(*texts: str) -> None:
        """Waits until it has said all of that."""
        deadline = time.monotonic() + 90
        while not all(text in "".join(list(said)) for text in texts):
            assert reader.is_alive(), said
            assert time.monotonic() < deadline, (texts, said)
            time.sleep(0.05)

    def shown(path: str) -> str:
        host, port = _published(app)
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/{path}", timeout=20) as answer:
                return str(answer.read().decode())
        except (
            OSError,
            http.client.HTTPException,
        ):  # while it is replaced, and before the server listens
            return ""

    def until_shown(path: str, text: str) -> None:
        deadline = time.monotonic() + 90
        while (found := shown(path)) != text:
            assert time.monotonic() < deadline, (path, found, said)
            time.sleep(0.05)

    try:
        expect("watching")
        until_shown("index.html", "one")
        assert shown("deep/page") == "page"
        assert app("exec", "-T", "web", "ls", "/w").stdout.split() == ["deep", "index.html"]
        (site / "index.html").write_text("two")
        (site / "deep" / "new").mkdir()
        (site / "deep" / "new" / "file").write_text("new")
        expect("synced")
        until_shown("index.html", "two")
        app.engine.settle(lambda: "/w/deep/new/file" in shown_folder(app), "a folder is not seen")
        (site / "deep" / "page").unlink()
        (site / "hook").write_text("h")
        expect("hooked", "/w/deep/page")
        until_shown("copied", "h")  # it may have been carried over before anything was in it
        assert app("exec", "-T", "web", "ls", "/w/deep").stdout.split() == ["new"]
        if runtime == "container":  # another boot would show nothing new
            (app.folder / "again" / "x").write_text("")
            expect("web: restarted")
    finally:
        watching.send_signal(signal.SIGINT)
        try:
            watching.wait(60)
        finally:
            watching.kill()


def shown_folder(app: App) -> str:
    """The files below /w in the service web."""
    return app("exec", "-T", "web", "find", "/w").stdout


HOOKED = """
services:
  web:
    image: IMAGE
    command: ["sh", "-c", "LOOP"]
    volumes: [".:/out"]
    stop_grace_period: 1s
    post_start:
      - {command: ["sh", "-c", "echo begun $$WHO >/out/begun"], environment: {WHO: me}}
    pre_stop:
      - {command: ["sh", "-c", "echo ends >/out/ends; exit 3"], user: "0"}
"""


def test_hooks_run_after_the_start_and_before_the_stop(app: App) -> None:
    app.file(HOOKED)
    app("up", "-d")
    assert (app.folder / "begun").read_text() == "begun me\n"
    assert not (app.folder / "ends").exists()
    app("stop")
    assert (app.folder / "ends").read_text() == "ends\n"
    app("down")
    app.file(HOOKED.replace("echo begun", "echo bad; exit 4; echo"))
    failed = app("up", "-d", check=False)
    assert failed.returncode != 0
    assert "post_start" in failed.stderr
    assert "exit code 4" in failed.stderr


def test_up_with_watch_shows_the_output_and_stops_on_ctrl_c(app: App) -> None:
    text = WATCHED.replace("RUNTIME", "container").replace("mkdir -p", "echo is up; mkdir -p")
    app.file(text)
    (app.folder / "site").mkdir()
    (app.folder / "again").mkdir()
    process = app.popen("up", "--watch")
    stdout = process.stdout
    assert stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(stdout), daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + 120
        while not ("watching" in "".join(said) and "web-1  | is up" in "".join(said)):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        (app.folder / "site" / "x").write_text("x")
        while "synced /w/x" not in "".join(said):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        reader.join(20)
    assert app.states() == {f"{app.name}-web-1": "exited"}
    refused = app("publish", "--app", "x/y", check=False)
    assert refused.returncode != 0
    assert "gemel push" in refused.stderr
