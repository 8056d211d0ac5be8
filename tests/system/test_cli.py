"""Single commands against a real engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gemel.host import lock
from tests.engine import IMAGE, SOURCE, EngineProcess
from tests.system.terminal import Terminal

pytestmark = pytest.mark.root


def fresh(prefix: str = "c") -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def sleeper(engine: EngineProcess) -> Iterator[str]:
    """The name of a running container."""
    name = fresh()
    engine.gemel("run", "-d", "--init", "--name", name, IMAGE, "sleep", "1000")
    yield name
    engine.gemel("rm", "-f", name)


@pytest.fixture
def terminal(engine: EngineProcess) -> Iterator[Callable[..., Terminal]]:
    """Starts commands under a terminal and ends them at last."""
    made: list[Terminal] = []

    def start(*args: str) -> Terminal:
        one = Terminal(*args, env=engine.env, cwd=engine.base)
        made.append(one)
        return one

    yield start
    for one in made:
        one.close()


def test_run_gives_output_and_status(engine: EngineProcess) -> None:
    done = engine.gemel(
        "run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_run_passes_input_on_to_its_end(engine: EngineProcess) -> None:
    text = "line\n" * 50_000
    done = engine.gemel("run", "--rm", "-i", IMAGE, "cat", input=text)
    assert done.stdout == text


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        ([IMAGE, "nosuch"], 127, "not found"),
        ([IMAGE, "/etc"], 126, ""),
        (["--pull", "never", "no/such:image", "x"], 125, "no/such"),
        (["-p", "what", IMAGE], 125, "no port to publish"),
    ],
)
def test_run_fails_as_docker_does(
    engine: EngineProcess, argv: list[str], status: int, words: str
) -> None:
    name = fresh()
    done = engine.gemel("run", "--rm", "--name", name, *argv, check=False)
    assert done.returncode == status
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert name not in engine.gemel("container", "ls", "-a").stdout


def test_rm_has_removed_it_when_run_returns(engine: EngineProcess) -> None:
    name = fresh()
    engine.gemel("run", "--rm", "--name", name, IMAGE, "true")
    assert engine.gemel("inspect", name, check=False).returncode == 1


def test_signals_reach_the_program(engine: EngineProcess) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "gemel", "run", "--rm", IMAGE, "sh", "-c", script],
        env=engine.env,
        cwd=engine.base,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "got\n"
    process.stdout.close()
    assert process.wait(30) == 9


def test_run_with_a_terminal(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("run", "--rm", "-it", IMAGE, "sh")
    shell.type("stty size\n")
    shell.expect("30 100")
    shell.type("sh -c \"echo be''gun; exec sleep 500\"\n")
    shell.expect("begun")
    shell.type("\x03")
    shell.expect("# ")
    shell.type("echo status $?\n")
    shell.expect("status 130")
    shell.type("exit 5\n")
    assert shell.end() == 5


def test_exec_with_a_terminal_that_changes_its_size(
    sleeper: str, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("exec", sleeper, "sh")
    shell.type("tty; stty size\n")
    shell.expect("30 100")
    shell.resize(40, 120)
    shell.process.send_signal(signal.SIGWINCH)
    shell.type("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.1; done; echo re''sized\n")
    shell.expect("resized")
    shell.type("exit 3\n")
    assert shell.end() == 3


def test_detaching_leaves_it_running(
    engine: EngineProcess, terminal: Callable[..., Terminal]
) -> None:
    name = fresh()
    shell = terminal("run", "-it", "--name", name, IMAGE, "sh")
    shell.type("echo a''live\n")
    shell.expect("alive")
    shell.type("\x10\x11")
    assert shell.end() == 0
    assert engine.gemel("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"
    again = terminal("attach", name)
    again.type("echo a''gain; exit 4\n")
    again.expect("again")
    assert again.end() == 4
    engine.gemel("rm", name)


def test_exec(engine: EngineProcess, sleeper: str) -> None:
    done = engine.gemel(
        "exec", "-T", "-e", "A=b", "-w", "/tmp", sleeper, "sh", "-c", "echo $A; pwd; cat; exit 6",
        input="typed", check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("b\n/tmp\ntyped", 6)
    assert engine.gemel("exec", sleeper, "nosuch", check=False).returncode in (126, 127)
    shell = engine.gemel("exec", "-T", sleeper, "bash", check=False)
    assert shell.returncode == 127
    assert f"no bash, but sh: gemel exec {sleeper} sh; gemel debug {sleeper}" in shell.stderr
    assert (
        engine.gemel("exec", "-T", sleeper, "sh", "-c", "no", check=False).stderr.count("help") == 0
    )
    missing = engine.gemel("exec", fresh(), "true", check=False)
    assert missing.returncode == 1
    assert "no such container" in missing.stderr.lower()


def test_ps_inspect_and_logs(engine: EngineProcess, sleeper: str) -> None:
    rows = [json.loads(line) for line in engine.gemel("ps", "--format", "json").stdout.splitlines()]
    row = next(row for row in rows if row["Names"] == sleeper)
    assert (row["State"], row["Runtime"]) == ("running", "container")
    shown = engine.gemel("ps", "--format", "{{.Names}} {{.Runtime}}").stdout.splitlines()
    assert f"{sleeper} container" in shown
    inspected = json.loads(engine.gemel("inspect", sleeper).stdout)
    assert inspected[0]["Name"] == f"/{sleeper}"
    name = fresh()
    engine.gemel("run", "--name", name, IMAGE, "sh", "-c", "echo one; echo two; echo bad >&2")
    done = engine.gemel("logs", name)
    assert (done.stdout, done.stderr) == ("one\ntwo\n", "bad\n")
    # which of the two streams came last is not told
    done = engine.gemel("logs", "--tail", "2", name)
    last = (done.stdout.split(), done.stderr.split())
    assert last in ((["two"], ["bad"]), (["one", "two"], []))
    stamped = engine.gemel("logs", "-t", name).stdout.splitlines()[0]
    assert stamped.endswith("Z one")
    engine.gemel("rm", name)


def test_lifecycle_of_one(engine: EngineProcess, sleeper: str) -> None:
    def state() -> str:
        return engine.gemel("inspect", "-f", "{{.State.Status}}", sleeper).stdout.strip()

    engine.gemel("pause", sleeper)
    assert state() == "paused"
    engine.gemel("unpause", sleeper)
    engine.gemel("stop", "-t", "5", sleeper)
    assert state() == "exited"
    engine.gemel("start", sleeper)
    assert state() == "running"
    assert engine.gemel("rm", sleeper, check=False).returncode == 1
    # the program whose signal it is must have been loaded
    engine.settle(lambda: "sleep 1000" in engine.gemel("top", sleeper).stdout, "no sleep")
    engine.gemel("kill", "-s", "TERM", sleeper)
    waited = engine.gemel("wait", sleeper)
    assert waited.stdout.strip() == "143"


def test_cp_both_ways(engine: EngineProcess, sleeper: str, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("content")
    (folder / "link").symlink_to("deep/file")
    engine.gemel("cp", str(folder), f"{sleeper}:/tmp/there")
    shown = engine.gemel("exec", "-T", sleeper, "cat", "/tmp/there/link")
    assert shown.stdout == "content"
    engine.gemel("cp", f"{sleeper}:/tmp/there/.", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "file").read_text() == "content"
    assert os.readlink(tmp_path / "back" / "link") == "deep/file"
    engine.gemel("cp", f"{sleeper}:/tmp/there/deep/file", str(tmp_path / "one"))
    assert (tmp_path / "one").read_text() == "content"
    assert engine.gemel("cp", f"{sleeper}:/no", str(tmp_path), check=False).returncode == 1


def test_networks_and_volumes(engine: EngineProcess) -> None:
    net, vol = fresh("net"), fresh("vol")
    engine.gemel("network", "create", "--label", "a=b", net)
    engine.gemel("volume", "create", vol)
    assert net in engine.gemel("network", "ls", "--filter", "label=a=b").stdout
    engine.gemel("run", "--rm", "--network", net, "-v", f"{vol}:/d", IMAGE, "touch", "/d/x")
    shown = engine.gemel("run", "--rm", "--network", "none", "-v", f"{vol}:/d", IMAGE, "ls", "/d")
    assert shown.stdout == "x\n"
    assert json.loads(engine.gemel("volume", "inspect", vol).stdout)[0]["Name"] == vol
    engine.gemel("network", "rm", net)
    engine.gemel("volume", "rm", vol)
    assert engine.gemel("network", "rm", net, check=False).returncode == 1


def test_images(engine: EngineProcess, tmp_path: Path) -> None:
    name = fresh("img")
    engine.gemel("image", "tag", IMAGE, f"{name}:v1")
    assert engine.gemel("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).stdout == (
        f"{name}:v1\n"
    )
    engine.gemel("image", "save", "-o", str(tmp_path / "img.tar"), f"{name}:v1")
    engine.gemel("image", "rm", f"{name}:v1")
    assert engine.gemel("image", "inspect", f"{name}:v1", check=False).returncode == 1
    engine.gemel("image", "load", "-i", str(tmp_path / "img.tar"))
    assert engine.gemel("run", "--rm", f"{name}:v1", "echo", "back").stdout == "back\n"
    engine.gemel("image", "rm", f"{name}:v1")


def test_a_reader_that_leaves_is_nothing_to_talk_about(engine: EngineProcess) -> None:
    done = subprocess.run(
        f"{sys.executable} -m gemel run --rm {IMAGE} yes | head -1",
        shell=True,
        env=engine.env,
        cwd=engine.base,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("y\n", "")


def test_version_env_info(engine: EngineProcess) -> None:
    assert "API 1." in engine.gemel("version").stdout
    told = f"export DOCKER_HOST=unix://{engine.paths.socket} DOCKER_BUILDKIT=0\n"
    assert engine.gemel("env").stdout == told
    assert engine.gemel("env", "--unset").stdout == "unset DOCKER_HOST DOCKER_BUILDKIT\n"
    assert f"Root: {engine.paths.root}" in engine.gemel("info").stdout


def test_the_engine_is_started_on_demand_and_stopped(tmp_path: Path) -> None:
    place = EngineProcess()
    try:
        first = subprocess.Popen(
            [sys.executable, "-m", "gemel", "info"],
            env=place.env,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert place.gemel("container", "ls").stdout.startswith("CONTAINER ID")
        assert "Socket" in first.communicate(timeout=60)[0]
        assert first.returncode == 0
        assert place.gemel("system", "stop").stdout == "the engine has stopped\n"
        lock.acquire(place.paths.run / "gemel.lock", "an engine").release()  # its process is gone
        assert "not running" in place.gemel("version").stdout
    finally:
        place.gemel("system", "stop", check=False)
        place.stop()


def test_an_engine_that_cannot_start_says_why() -> None:
    place = EngineProcess()
    try:
        shutil.rmtree(place.paths.root)
        place.paths.root.write_text("in the way")
        done = place.gemel("ps", check=False)
        assert done.returncode == 1
        assert "the engine ended at its start" in done.stderr
        assert str(place.paths.root) in done.stderr
        place.paths.root.unlink()
        place.paths.root.mkdir()
    finally:
        place.stop()


def test_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    path = f"/tmp/gt-{uuid.uuid4().hex[:8]}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        code = (
            "import gemel.client.engine as e; e.PING_TIMEOUT = 0.5;"
            "from gemel.cli.main import call; raise SystemExit(call(['ps']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "GEMEL_HOST": f"unix://{path}"},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
    os.unlink(path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the engine does not answer")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(engine: EngineProcess, shell: str) -> None:
    assert "_GEMEL_COMPLETE" in engine.gemel("completion", shell).stdout
