"""Debian's docker command line, unchanged, drives an engine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dockercli import COMPOSE, Docker, Terminal
from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

#: What a client runs to fetch /file from a service (Debian's busybox wget crashes).
GET = "printf 'GET /file HTTP/1.0\\r\\n\\r\\n' | nc {} 80"


@pytest.fixture(scope="module")
def docker(engine: EngineProcess) -> Docker:
    return Docker(engine)


@pytest.fixture(scope="module")
def sleeper(docker: Docker) -> str:
    """A container that runs during all tests of the file."""
    docker.ok("run", "-d", "--name", "sleeper", IMAGE, "sleep", "1000")
    return "sleeper"


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_run_gives_output_error_and_status(docker: Docker) -> None:
    done = docker.run("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert docker.ok("version", "--format", "{{.Server.APIVersion}}") == "1.47\n"


def test_run_takes_a_file_on_standard_input(docker: Docker) -> None:
    """Half-close: wc ends at the end of the input, and its answer still comes."""
    data = os.urandom(3 << 20)
    done = docker.run("run", "--rm", "-i", IMAGE, "wc", "-c", input=data)
    assert done.stdout.strip() == str(len(data)).encode(), done
    # more than any buffer, through a program that stops reading
    done = docker.run("run", "--rm", "-i", IMAGE, "head", "-c", "5", input=data)
    assert done.stdout == data[:5], done.stderr


def test_a_missing_command_gives_127_and_leaves_nothing(docker: Docker) -> None:
    done = docker.run("run", "--rm", "--name", "gone", IMAGE, "nothere")
    assert done.returncode == 127, done.stderr
    assert b"executable file not found" in done.stderr
    assert docker.run("run", "--rm", IMAGE, "/etc/passwd").returncode == 126
    assert docker.ok("ps", "-aq", "--filter", "name=gone") == ""


def test_exec_carries_bytes_exactly(docker: Docker, sleeper: str) -> None:
    data = os.urandom(2 << 20)
    done = docker.run("exec", "-i", sleeper, "cat", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    done = docker.run("exec", sleeper, "sh", "-c", "echo a; echo b >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"a\n", b"b\n")
    assert docker.run("exec", sleeper, "nothere").returncode in (126, 127)
    assert docker.run("exec", "-i", sleeper, "true", input=data).returncode == 0
    done = docker.run(
        "exec", "-e", "A=1", "-w", "/tmp", "-u", "1000", sleeper, "sh", "-c", "echo $A $PWD; id -u"
    )
    assert done.stdout == b"1 /tmp\n1000\n"


def test_exec_on_a_terminal(docker: Docker, sleeper: str, terminals: list[Terminal]) -> None:
    terminal = docker.terminal("exec", "-it", sleeper, "sh", rows=31, columns=97)
    terminals.append(terminal)
    terminal.expect(b"#")
    deadline = time.monotonic() + 90
    for size in ((31, 97), (40, 120)):
        terminal.resize(*size)
        wanted = b"%d %d\r\n" % size
        seen = b""
        while wanted not in seen:  # the client sends the size when it can
            assert time.monotonic() < deadline, seen
            terminal.type(b"stty size; echo do''ne\r")
            seen = terminal.expect(b"done\r\n")
    terminal.type(b"echo rea''dy; sleep 100\r")
    terminal.expect(b"ready\r\n")
    interrupted = b""
    while b"#" not in interrupted:  # it may come before the shell has handed the terminal over
        assert time.monotonic() < deadline + 30, interrupted
        terminal.type(b"\x03")
        with contextlib.suppress(AssertionError):
            interrupted += terminal.expect(b"#", timeout=1) + b"#"
    terminal.type(b"exit 5\r")
    assert terminal.wait() == 5


def test_attach_detach_and_attach_again(docker: Docker, terminals: list[Terminal]) -> None:
    docker.ok("create", "-it", "--name", "shell", IMAGE, "sh")
    first = docker.terminal("start", "-ai", "shell")
    terminals.append(first)
    first.expect(b"#")
    first.type(b"X=kept\r")
    first.expect(b"#")
    first.type(b"\x10\x11")
    assert first.wait() == 0
    second = docker.terminal("attach", "shell")
    terminals.append(second)
    second.type(b"echo [$X]\r")
    second.expect(b"[kept]")
    second.type(b"exit 3\r")
    assert second.wait() == 3
    docker.ok("rm", "shell")


def test_logs(docker: Docker) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 1; echo last"
    docker.ok("run", "-d", "--name", "talks", IMAGE, "sh", "-c", script)
    follower = docker.start("logs", "-f", "talks")
    try:
        out, err = follower.communicate(timeout=120)  # ends with the container
    finally:
        follower.kill()
        follower.wait()
    assert out == b"out 1\nout 2\nout 3\nlast\n"
    assert err == b"err 1\nerr 2\nerr 3\n"
    assert docker.ok("logs", "--tail", "1", "talks") == "last\n"
    line = docker.ok("logs", "-t", "--tail", "1", "talks")
    stamp, _, text = line.partition(" ")
    assert text == "last\n" and stamp.endswith("Z")
    assert docker.ok("logs", "--since", stamp, "talks") == "last\n"
    assert "last" not in docker.ok("logs", "--until", stamp.replace("Z", "")[:19] + "Z", "talks")
    docker.ok("rm", "talks")


def test_copying_files_both_ways(docker: Docker, sleeper: str, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_bytes(b"content")
    (tmp_path / "tree" / "link").symlink_to("sub/file")
    docker.ok("cp", str(tmp_path / "tree"), f"{sleeper}:/tmp/there")
    assert docker.ok("exec", sleeper, "cat", "/tmp/there/link") == "content"
    docker.ok("cp", f"{sleeper}:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_bytes() == b"content"
    assert os.readlink(tmp_path / "back" / "link") == "sub/file"
    done = docker.run("cp", f"{sleeper}:/etc/passwd", "-")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["passwd"]
    assert docker.run("cp", f"{sleeper}:/nothere", "-").returncode != 0


def test_what_runs(docker: Docker, sleeper: str) -> None:
    rows = docker.ok("ps", "--format", "{{json .}}", "--filter", f"name={sleeper}").splitlines()
    [row] = [json.loads(line) for line in rows]
    assert row["Names"] == sleeper and row["Image"] == IMAGE and row["State"] == "running"
    assert "sleep 1000" in docker.ok("top", sleeper)
    stats = json.loads(docker.ok("stats", "--no-stream", "--format", "{{json .}}", sleeper))
    assert stats["Name"] == sleeper and int(stats["PIDs"]) >= 1
    assert docker.ok("inspect", "--format", "{{.State.Running}}", sleeper) == "true\n"


def test_events_and_wait(docker: Docker) -> None:
    since = str(int(time.time()) - 1)
    name = "short"
    docker.ok("create", "--name", name, IMAGE, "sh", "-c", "exit 4")
    waiter = docker.start("wait", name)
    try:
        docker.ok("start", name)
        out, _ = waiter.communicate(timeout=120)
        assert out in (b"4\n", b"0\n")  # 0: it asked before the start
    finally:
        waiter.kill()
        waiter.wait()
    assert docker.ok("wait", name) == "4\n"
    docker.ok("rm", name)
    lines = docker.ok(
        "events", "--since", since, "--until", str(int(time.time()) + 1),
        "--filter", f"container={name}", "--format", "{{.Status}}",
    ).splitlines()  # fmt: skip
    wanted = ["create", "start", "die", "destroy"]
    assert [line for line in lines if line in wanted] == wanted


def test_life_of_a_container(docker: Docker) -> None:
    docker.ok("run", "-d", "--name", "life", "-e", "A=b", "--label", "l=1", IMAGE, "sleep", "1000")
    assert docker.run("rm", "life").returncode == 1
    assert docker.run("start", "life").returncode == 0  # not modified
    docker.ok("rename", "life", "death")
    docker.ok("pause", "death")
    assert docker.ok("inspect", "-f", "{{.State.Status}}", "death") == "paused\n"
    docker.ok("unpause", "death")
    docker.ok("restart", "-t", "0", "death")
    docker.ok("kill", "death")
    assert docker.ok("inspect", "-f", "{{.State.ExitCode}}", "death") == "137\n"
    docker.ok("rm", "death")
    done = docker.run("inspect", "death")
    assert done.returncode == 1 and b"No such" in done.stderr


def test_networks_and_volumes(docker: Docker) -> None:
    docker.ok("network", "create", "net-a")
    docker.ok("volume", "create", "vol-a")
    docker.ok(
        "run", "-d", "--name", "server", "--network", "net-a", "-v", "vol-a:/data", IMAGE,
        "sh", "-c", "echo shared > /data/file; exec httpd -f -p 80 -h /data",
    )  # fmt: skip
    deadline = time.monotonic() + 90
    found = ""
    while not found and time.monotonic() < deadline:
        found = docker.run(
            "run", "--rm", "--network", "net-a", IMAGE, "sh", "-c", GET.format("server")
        ).stdout.decode()
    assert found.endswith("\r\n\r\nshared\n")
    assert docker.run("network", "rm", "net-a").returncode == 1  # in use
    assert docker.run("volume", "rm", "vol-a").returncode == 1
    docker.ok("rm", "-f", "server")
    docker.ok("network", "rm", "net-a")
    docker.ok("volume", "rm", "vol-a")


def test_images(docker: Docker, tmp_path: Path) -> None:
    docker.ok("tag", IMAGE, "other/name:1")
    docker.ok("save", "-o", str(tmp_path / "saved.tar"), "other/name:1")
    docker.ok("rmi", "other/name:1")
    assert "other/name:1" in docker.ok("load", "-i", str(tmp_path / "saved.tar"))
    assert docker.ok("images", "-q", "other/name") != ""
    docker.ok("history", "other/name:1")
    docker.ok("rmi", "other/name:1")
    assert docker.run("image", "inspect", "other/name:1").returncode == 1


def test_build(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nARG WHAT=nothing\nCOPY file /copied\nRUN echo $WHAT > /made\n"
        'CMD ["cat", "/copied", "/made"]\n'
    )
    (tmp_path / "file").write_text("from the context\n")
    docker.ok("build", "-t", "built:1", "--build-arg", "WHAT=argument", str(tmp_path))
    assert docker.ok("run", "--rm", "built:1") == "from the context\nargument\n"
    docker.ok("rmi", "built:1")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo the reason; false\n")
    done = docker.run("build", str(tmp_path))
    assert done.returncode == 1
    assert b"the reason" in done.stdout + done.stderr


@pytest.mark.skipif(not os.path.exists(COMPOSE), reason="docker-compose is not installed")
def test_compose_v1(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(
        f"""
version: "3.8"
services:
  web:
    image: {IMAGE}
    command: ["sh", "-c", "echo hello > /data/file; exec httpd -f -p 80 -h /data"]
    networks: [front]
    volumes: ["data:/data"]
  client:
    image: {IMAGE}
    command: ["sleep", "1000"]
    networks: [front]
    depends_on: [web]
networks:
  front: {{}}
volumes:
  data: {{}}
"""
    )
    compose = Docker(engine, COMPOSE)
    compose.ok("-p", "shop", "up", "-d", cwd=tmp_path)
    try:
        assert "Up" in compose.ok("-p", "shop", "ps", cwd=tmp_path)
        deadline = time.monotonic() + 90
        answer = ""
        while not answer.endswith("\nhello\n") and time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):
                answer = compose.ok(
                    "-p", "shop", "exec", "-T", "client", "sh", "-c", GET.format("web"),
                    cwd=tmp_path,
                )  # fmt: skip
        assert answer.endswith("\nhello\n")
        compose.ok("-p", "shop", "logs", "web", cwd=tmp_path)
    finally:
        compose.ok("-p", "shop", "down", "-v", "-t", "0", cwd=tmp_path)
    assert Docker(engine).ok("ps", "-aq", "--filter", "label=com.docker.compose.project=shop") == ""
