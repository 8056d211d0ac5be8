"""The commands of Compose against a real engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess
from tests.system.terminal import Terminal

pytestmark = pytest.mark.root
Gemel = Callable[..., "subprocess.CompletedProcess[str]"]

#: What is said after TRAP and seen by a test means that a signal will be heeded.
TRAP = "trap 'echo bye; exit 0' TERM"
LOOP = f"{TRAP}; while :; do sleep 0.1; done"


class App:
    """A project in a folder of its own."""

    def __init__(self, engine: EngineProcess, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.name = f"p{uuid.uuid4().hex[:8]}"

    def file(self, text: str) -> None:
        """Writes the Compose file."""
        for word, meaning in (("IMAGE", IMAGE), ("LOOP", LOOP), ("TRAP", TRAP)):
            text = text.replace(word, meaning)
        text = f"name: {self.name}\n{text}"
        (self.folder / "compose.yaml").write_text(text)

    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.gemel(*args, cwd=self.folder, check=check)

    def states(self) -> dict[str, str]:
        """Container → state."""
        lines = self("ps", "-a", "--format", "json").stdout.splitlines()
        return {row["Name"]: row["State"] for row in map(json.loads, lines)}

    def left(self) -> list[str]:
        """What the engine still has of the project."""
        found = [e["Names"][0] for e in self.engine.ok("GET", "/containers/json?all=1")]
        found += [e["Name"] for e in self.engine.ok("GET", "/networks")]
        found += [e["Name"] for e in self.engine.ok("GET", "/volumes")["Volumes"] or []]
        return [name for name in found if self.name in name]

    def said(self, *words: str) -> None:
        """Waits until the services' logs have all of these words."""
        self.engine.settle(
            lambda: all(word in self("logs", "--no-color").stdout for word in words),
            f"its logs do not have {' and '.join(words)}",
            timeout=120,
        )

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """A command in the background, both outputs in one."""
        return subprocess.Popen(
            [sys.executable, "-m", "gemel", *args],
            env=self.engine.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def app(engine: EngineProcess, tmp_path: Path) -> Iterator[App]:
    """A project that is gone after the test."""
    one = App(engine, tmp_path)
    yield one
    engine.gemel("-p", one.name, "down", "-v", "-t", "1", "--remove-orphans", cwd=Path("/"))
    assert one.left() == []


TWO = """
services:
  web:
    image: IMAGE
    command:
      - sh
      - -c
      - mkdir /w; echo hello >/w/index.html; httpd -p 80 -h /w; TRAP; echo web up; LOOP
    ports: ["127.0.0.1::80"]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: IMAGE
    command: ["sh", "-c", "TRAP; echo db up; LOOP"]
    healthcheck: {test: "true", interval: 200ms, retries: 20}
    volumes: ["data:/data"]
volumes: {data: {}}
"""


def test_the_life_of_an_application(app: App) -> None:
    app.file(TWO)
    started = app("up", "-d")
    assert f"Container {app.name}-db-1  Healthy" in started.stderr
    rows = {
        r["Service"]: r for r in map(json.loads, app("ps", "--format", "json").stdout.splitlines())
    }
    assert rows["db"]["Health"] == "healthy"
    assert rows["web"]["Runtime"] == "container"
    assert rows["web"]["Publishers"][0]["TargetPort"] == 80
    app.said("db up", "web up")  # it listens
    address = app("port", "web", "80").stdout.strip()
    with urllib.request.urlopen(f"http://{address}/", timeout=20) as answer:
        assert answer.read() == b"hello\n"
    assert app("exec", "-T", "db", "sh", "-c", "exit 4", check=False).returncode == 4
    logs = app("logs", "--no-color").stdout.splitlines()
    assert sorted(logs) == ["db-1   | db up", "web-1  | web up"]
    assert app("ps", "--services").stdout.split() == ["db", "web"]
    assert f"{app.name}-web-1" in app("top", "web").stdout
    assert app.name in app("ls").stdout
    again = app("up", "-d")
    assert "Created" not in again.stderr
    app("stop", "web")
    assert app.states()[f"{app.name}-web-1"] == "exited"
    app("start", "web")
    app("up", "-d", "--scale", "db=2")
    assert app.states()[f"{app.name}-db-2"] == "running"
    app("down")
    assert app.left() == [f"{app.name}_data"]
    app("down", "-v")
    assert app.left() == []


def test_only_what_changed_is_made_anew(app: App) -> None:
    app.file(TWO)
    app("up", "-d")
    before = {e["Names"][0]: e["Id"] for e in app.engine.ok("GET", "/containers/json")}
    app.file(TWO.replace("echo web up", "echo web new"))
    app("up", "-d")
    after = {e["Names"][0]: e["Id"] for e in app.engine.ok("GET", "/containers/json")}
    assert before[f"/{app.name}-db-1"] == after[f"/{app.name}-db-1"]
    assert before[f"/{app.name}-web-1"] != after[f"/{app.name}-web-1"]
    app.said("web new")


def test_run_of_a_service(app: App) -> None:
    app.file(TWO)
    done = app(
        "run", "--rm", "-e", "A=b", "db", "sh", "-c", "echo $A; ls -d /data; exit 3", check=False
    )
    assert done.returncode == 3
    assert done.stdout == "b\n/data\n"
    assert app.states() == {}


def test_attached_up_stops_on_ctrl_c(app: App) -> None:
    app.file(TWO)
    process = app.popen("up")
    assert process.stdout is not None
    seen = ""
    while not ("web up" in seen and "db up" in seen):
        line = process.stdout.readline()
        assert line, seen
        seen += line
    assert "Attaching to db-1, web-1" in seen
    assert "db-1   | db up" in seen
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Gracefully stopping... (press Ctrl+C again to force)" in rest
    assert "web-1  | bye" in rest
    assert set(app.states().values()) == {"exited"}


def test_attached_up_ends_with_its_services(app: App) -> None:
    app.file("""
services:
  a: {image: IMAGE, command: ["sh", "-c", "echo a; exit 3"]}
  b: {image: IMAGE, command: ["sh", "-c", "echo b"]}
""")
    done = app("up")
    assert {"a-1  | a", "b-1  | b", "a-1  exited with code 3"} <= set(done.stdout.splitlines())
    again = app("up", "--exit-code-from", "a", check=False)
    assert again.returncode == 3


def test_up_under_a_terminal_redraws_and_a_second_ctrl_c_kills(app: App) -> None:
    app.file("""
services:
  deaf:
    image: IMAGE
    command: ["sh", "-c", "trap '' TERM; echo deaf up; while :; do sleep 0.1; done"]
""")
    terminal = Terminal("up", env=app.engine.env, cwd=app.folder)
    try:
        terminal.expect(f"✔ Container {app.name}-deaf-1")
        terminal.expect("deaf up")
        terminal.type("\x03")
        terminal.expect("Gracefully stopping")
        terminal.type("\x03")
        terminal.expect("Killing...")
        assert terminal.end() == 130
    finally:
        terminal.close()
    assert app.states() == {f"{app.name}-deaf-1": "exited"}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("services:\n  a: {image: IMAGE, comand: x}", "compose.yaml:3:"),
        ("services:\n  a: {image: IMAGE, networks: [none-such]}", "none-such"),
        ("services:\n  a: [", "compose.yaml"),
        (
            "services:\n  a: {image: IMAGE, depends_on: [b]}\n  b: {image: IMAGE, depends_on: [a]}",
            "cycle",
        ),
        ("services:\n  a: {image: 'no/such:image', pull_policy: never}", "no/such:image"),
        ("services:\n  a: {image: IMAGE, command: nosuch}", "nosuch"),
        ("services:\n  a: {build: ./none}", "none"),
        (
            "services:\n  a: {image: IMAGE, command: sleep 99, init: true,"
            " healthcheck: {test: 'echo no way; exit 1', interval: 100ms, retries: 2}}\n"
            "  b: {image: IMAGE, command: 'true', depends_on: {a: {condition: service_healthy}}}",
            "no way",
        ),
    ],
    ids=["key", "network", "yaml", "cycle", "image", "command", "build", "unhealthy"],
)
def test_bad_input_changes_nothing(app: App, file: str, words: str) -> None:
    app.file(file)
    done = app("up", "-d", check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert app.left() == []


def test_a_port_that_is_taken(app: App) -> None:
    app.file(
        "services:\n  a: {image: IMAGE, init: true, command: sleep 99, ports: ['127.0.0.1::80']}"
    )
    app("up", "-d")
    taken = app("port", "a", "80").stdout.strip().rpartition(":")[2]
    other = f"{app.name}-other"
    done = app(
        "run",
        "-d",
        "--name",
        other,
        "-p",
        f"127.0.0.1:{taken}:80",
        IMAGE,
        "sleep",
        "9",
        check=False,
    )
    assert done.returncode == 125
    assert taken in done.stderr
    app("rm", "-f", other, check=False)


def test_wait_and_its_failure(app: App) -> None:
    app.file("""
services:
  a: {image: IMAGE, init: true, command: sleep 99,
      healthcheck: {test: "test -e /ok", interval: 100ms, retries: 2}}
""")
    done = app("up", "--wait", "--keep", check=False)
    assert done.returncode == 1
    assert "is unhealthy" in done.stderr
    assert app.states() == {f"{app.name}-a-1": "running"}
    app("exec", "-T", "a", "touch", "/ok")
    app.engine.wait_for("healthy", name=f"{app.name}-a-1")  # up --wait ends at once if it is not
    app("up", "--wait", "--wait-timeout", "60")


def test_dry_run_and_config(app: App) -> None:
    app.file(TWO)
    planned = app("up", "--dry-run").stdout
    assert f"create: {app.name}-web-1" in planned
    assert app.left() == []
    assert json.loads(app("config", "--format", "json").stdout)["name"] == app.name
    assert app("config", "--services").stdout.split() == ["db", "web"]
    assert app("config", "-q").stdout == ""


def test_completion_knows_the_services(app: App) -> None:
    app.file(TWO)
    env = {"_GEMEL_COMPLETE": "bash_complete", "COMP_WORDS": "gemel logs w", "COMP_CWORD": "2"}
    done = app.engine.gemel(cwd=app.folder, env=env)
    assert "plain,web" in done.stdout


def test_build_of_a_service(app: App) -> None:
    app.file(f"services:\n  a: {{build: ., image: '{app.name}:built', command: cat /made}}")
    (app.folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY made not /\n")
    (app.folder / "made").write_text("made here")
    (app.folder / "not").write_text("")
    (app.folder / "huge").write_bytes(bytes(1 << 20))
    (app.folder / ".dockerignore").write_text("huge\n")
    app("build")
    assert app("run", "--rm", "a").stdout == "made here"
    (app.folder / "not").unlink()
    failed = app("build", check=False)
    assert failed.returncode == 1
    assert 'building service "a" failed' in failed.stderr
    app("down", "--rmi", "all")
    assert app("image", "inspect", f"{app.name}:built", check=False).returncode == 1


def test_restart_takes_those_with_it_that_ask_for_it(app: App) -> None:
    one = "image: IMAGE, command: sleep 600, stop_grace_period: 0s"
    app.file(
        f"services:\n  db: {{{one}}}\n"
        f"  api: {{{one}, depends_on: {{db: {{condition: service_started, restart: true}}}}}}\n"
        f"  web: {{{one}, depends_on: {{api: {{condition: service_started, restart: true}}}}}}\n"
        f"  job: {{{one}, depends_on: [db], pid: 'service:db', ipc: 'service:db'}}\n"
    )
    app("up", "-d")
    app.engine.settle(  # a start comes back before the program is loaded
        lambda: app("exec", "-T", "job", "ps").stdout.count("sleep 600") == 2,
        "job does not see db's processes and its own",
    )
    told = app("restart", "db").stderr
    assert [name for name in ("api", "web", "job") if f"{app.name}-{name}-1" in told] == [
        "api", "web",
    ]  # fmt: skip
    assert "api" not in app("restart", "--no-deps", "db").stderr
    app("down")


def test_a_fixed_address_goes_on_to_what_is_made_anew(app: App) -> None:
    text = (
        "services: {web: {image: IMAGE, command: sleep 600, stop_grace_period: 0s,\n"
        '  environment: {A: "1"}, networks: {n: {ipv4_address: 10.98.7.9}}}}\n'
        "networks: {n: {ipam: {config: [{subnet: 10.98.7.0/24}]}}}\n"
    )
    app.file(text)
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    app("up", "-d")
    app("up", "-d", "--force-recreate")
    app.file(text.replace('"1"', '"2"'))
    app("update", "web")
    name = f"{app.name}-web-1"
    assert app("inspect", "-f", address, name).stdout == "10.98.7.9\n"
    other = ("run", "--network", f"{app.name}_n", "--name", f"{app.name}-two")
    made = app(*other, "--ip", "10.98.7.9", "-d", IMAGE, "true", check=False)
    assert made.returncode, made
    assert f"Address already in use: 10.98.7.9\n  on network {app.name}_n, by container {name}" in (
        made.stderr
    )
    app("rm", "-f", f"{app.name}-two")


def test_a_name_that_is_mistyped_or_nothing_to_run_is_told(app: App) -> None:
    app.file("services: {web: {image: IMAGE, command: sleep 600}, bare: {image: IMAGE}}\n")
    told = app("logs", "wbe", check=False)
    assert "no such service or container: wbe (did you mean web?)" in told.stderr
    told = app("debug", "wbe", check=False)  # before a toolbox is made for it
    assert "did you mean web?" in told.stderr and "toolbox" not in told.stderr
    told = app("up", "-d", "bare", check=False)
    if "no command" in told.stderr:  # the image has none
        assert f"cannot create container {app.name}-bare-1: no command specified" in told.stderr
        assert "`command:` in a Compose file" in told.stderr


def test_the_files_of_a_service_as_an_archive(app: App) -> None:
    app.file("services: {web: {image: IMAGE, stop_grace_period: 0s, command: sleep 600}}\n")
    app("up", "-d")
    app("exec", "-T", "web", "sh", "-c", "echo mine > /new")
    app("export", "-o", "web.tar", "web")
    with tarfile.open(app.folder / "web.tar") as tar:
        assert tar.extractfile("new").read() == b"mine\n"  # type: ignore[union-attr]
        assert "bin/busybox" in tar.getnames()
    assert [path.name for path in app.folder.glob("web.tar*")] == ["web.tar"]
    told = app("export", "--index", "3", "web", check=False)
    assert told.returncode == 1 and "no container number 3" in told.stderr
    told = app("export", "-o", "no/such/x", "web", check=False)
    assert told.returncode == 1 and "cannot write no/such/x" in told.stderr


def test_following_logs_ends_with_the_container(app: App) -> None:
    app.file("services:\n  a: {image: IMAGE, command: ['sh', '-c', 'echo 1; sleep 1; echo 2']}")
    app("up", "-d")
    assert app("logs", "-f", "--no-log-prefix").stdout.split() == ["1", "2"]
