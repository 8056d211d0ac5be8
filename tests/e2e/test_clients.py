"""Clients that people have, unchanged: current docker, Compose v1 and v2, libraries for Python.

Each starts containers and micro VMs, under the names that other systems use for theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiodocker
import docker as dockerpy
import pytest

from tests import fetch_clients
from tests.e2e.dockercli import COMPOSE, DOCKER, Docker
from tests.engine import CACHE, IMAGE, EngineProcess

pytestmark = pytest.mark.root

CURRENT = str(fetch_clients.docker(CACHE))
COMPOSE2 = str(fetch_clients.compose(CACHE))
ASLEEP = ("sleep", "1000")


def needs(program: str) -> None:
    """Skips where a client could not be fetched."""
    if not os.path.exists(program):
        pytest.skip(f"{os.path.basename(program)} could not be fetched from Debian's later suites")


def containers(engine: EngineProcess) -> list[dict[str, Any]]:
    """All, running or not."""
    found: list[dict[str, Any]] = engine.ok("GET", "/containers/json?all=1")
    return found


def runtime_of(engine: EngineProcess, name: str) -> str:
    """What an instance runs as."""
    [one] = [c for c in containers(engine) if f"/{name}" in c["Names"]]
    return str(one["Runtime"])


@pytest.mark.parametrize("program", [DOCKER, CURRENT], ids=["docker20", "docker28"])
def test_runtimes_by_all_their_names(engine: EngineProcess, program: str) -> None:
    needs(program)
    docker = Docker(engine, program)
    old = program == DOCKER
    names = {
        "microvm": ("kata",) if old else ("io.containerd.kata.v2",),
        "container": ("runc",) if old else ("io.containerd.runc.v2", "crun"),
    }
    for kind, words in names.items():
        for number, word in enumerate(words):
            name = f"by-name-{kind}-{number}"
            docker.ok("run", "-d", "--name", name, "--runtime", word, IMAGE, *ASLEEP)
            assert runtime_of(engine, name) == kind
            assert docker.ok("exec", name, "echo", "in") == "in\n"
            docker.ok("rm", "-f", name)
    done = docker.run("run", "--runtime", "nonsense", IMAGE, "true")
    assert done.returncode == 125 and b"nonsense" in done.stderr


def test_a_current_docker(engine: EngineProcess, tmp_path: Path) -> None:
    """What differs between API versions: its own flags and forms of the answers."""
    needs(CURRENT)
    docker = Docker(engine, CURRENT)
    assert docker.ok("version", "--format", "{{.Client.APIVersion}}") == "1.47\n"
    done = docker.run("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 4", input=b"typed")
    assert (done.returncode, done.stdout) == (4, b"typed")
    health = ("--health-cmd", "true", "--health-interval", "1s", "--health-start-interval", "1s")
    docker.ok("run", "-d", "--name", "cur", "-p", "127.0.0.1::80", *health, IMAGE, *ASLEEP)
    engine.wait_for("healthy", name="cur")
    row = json.loads(docker.ok("ps", "--format", "json", "--filter", "name=cur"))
    assert row["State"] == "running" and "->80/tcp" in row["Ports"]
    docker.ok("cp", "/etc/hostname", "cur:/tmp/copied")
    assert docker.ok("stats", "--no-stream", "--format", "{{.Name}}", "cur") == "cur\n"
    assert "sleep 1000" in docker.ok("top", "cur")
    assert docker.ok("images", "--format", "{{.Repository}}", IMAGE) == "test/busybox\n"
    docker.ok("image", "save", "-o", str(tmp_path / "saved.tar"), IMAGE)
    assert IMAGE in docker.ok("load", "-i", str(tmp_path / "saved.tar"))
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo built > /made\n")
    docker.ok("build", "-t", "by:current", str(tmp_path))
    assert docker.ok("run", "--rm", "--pull", "never", "by:current", "cat", "/made") == "built\n"
    docker.ok("rm", "-f", "cur")
    docker.ok("rmi", "by:current")
    assert docker.ok("system", "df") and docker.ok("info")


FILE = f"""
services:
  web:
    image: {IMAGE}
    command: ["sh", "-c", "echo hello > /data/file; exec httpd -f -p 80 -h /data"]
    volumes: ["data:/data"]
    healthcheck:
      test: ["CMD-SHELL", "echo x | nc 127.0.0.1 80"]
      interval: 1s
      retries: 30
  vm:
    image: {IMAGE}
    runtime: microvm
    command: ["sleep", "1000"]
volumes:
  data: {{}}
"""
GET = "printf 'GET /file HTTP/1.0\\r\\n\\r\\n' | nc web 80"


@pytest.mark.parametrize("program", [COMPOSE, COMPOSE2], ids=["compose1", "compose2"])
def test_compose(engine: EngineProcess, tmp_path: Path, program: str) -> None:
    needs(program)
    compose = Docker(engine, program)
    new = program == COMPOSE2
    text = FILE if new else f'version: "2.4"\n{FILE}'
    (tmp_path / "docker-compose.yml").write_text(text)
    project = ("-p", "shop2" if new else "shop1")
    wait = ("--wait",) if new else ()
    compose.ok(*project, "up", "-d", *wait, cwd=tmp_path)
    try:
        ask = (*project, "exec", "-T", "vm", "sh", "-c", GET)
        deadline = time.monotonic() + 90  # without --wait it may not serve yet
        while not (answer := compose.run(*ask, cwd=tmp_path).stdout).endswith(b"\nhello\n"):
            assert not new and time.monotonic() < deadline, answer
            time.sleep(0.2)
        kinds = {c["Runtime"] for c in containers(engine)}
        assert {"container", "microvm"} <= kinds
        if new:
            compose.ok(*project, "logs", cwd=tmp_path)
            ids = compose.ok(*project, "ps", "-q", cwd=tmp_path).split()
            compose.ok(*project, "up", "-d", *wait, cwd=tmp_path)  # nothing has changed
            assert set(compose.ok(*project, "ps", "-q", cwd=tmp_path).split()) == set(ids)
            compose.ok(*project, "up", "-d", "--scale", "web=2", "--no-recreate", cwd=tmp_path)
            assert len(compose.ok(*project, "ps", "-q", cwd=tmp_path).split()) == 3
    finally:
        compose.ok(*project, "down", "-v", "-t", "0", cwd=tmp_path)
    left = [c["Labels"].get("com.docker.compose.project") for c in containers(engine)]
    assert project[1] not in left


def test_gemel_env_sets_up_a_shell(engine: EngineProcess) -> None:
    env = {k: v for k, v in engine.env.items() if k not in ("DOCKER_HOST", "DOCKER_BUILDKIT")}
    script = (
        f'eval "$({sys.executable} -m gemel env)" && exec {DOCKER} info --format "{{{{.Name}}}}"'
    )
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, timeout=180)
    assert done.returncode == 0 and done.stdout.strip(), done


@pytest.mark.parametrize("program", [DOCKER, CURRENT], ids=["docker20", "current"])
def test_who_builds(engine: EngineProcess, tmp_path: Path, program: str) -> None:
    """Without a word the engine does; BuildKit's protocol ends with a clear error."""
    needs(program)
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo by {program}\n")
    env = {k: v for k, v in engine.env.items() if k != "DOCKER_BUILDKIT"}
    command = [program, "build", "-q", str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, timeout=180)
    assert done.returncode == 0 and done.stdout.startswith(b"sha256:"), done
    env["DOCKER_BUILDKIT"] = "1"
    done = subprocess.run(command, env=env, capture_output=True, timeout=180)
    assert done.returncode != 0 and (b"buildx" in done.stderr or b"404" in done.stderr), done


def test_docker_py_starts_a_micro_vm(engine: EngineProcess) -> None:
    client = dockerpy.DockerClient(base_url=f"unix://{engine.paths.socket}", timeout=60)
    try:
        found = client.containers.run(IMAGE, ["uname", "-s"], runtime="kata", remove=True)
        assert found == b"Linux\n"
    finally:
        client.close()


async def test_aiodocker_starts_a_micro_vm(engine: EngineProcess) -> None:
    client = aiodocker.Docker(url=f"unix://{engine.paths.socket}")
    try:
        one = await client.containers.run(
            {"Image": IMAGE, "Cmd": ["echo", "hi"], "HostConfig": {"Runtime": "microvm"}}
        )
        assert (await one.wait())["StatusCode"] == 0
        assert await one.log(stdout=True) == ["hi\n"]
        await one.delete()
    finally:
        await client.close()


@pytest.fixture
def environment(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's own environment as ``gemel env`` has it, for libraries that read it."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.paths.socket}")
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image is on Docker Hub
    yield


@pytest.mark.parametrize("runtime", ["runc", "microvm"])
def test_testcontainers(environment: None, engine: EngineProcess, runtime: str) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    one: Any = DockerContainer(IMAGE).with_exposed_ports(80).with_kwargs(runtime=runtime)
    one.with_command("sh -c 'echo served > /tmp/file; echo up; exec httpd -f -p 80 -h /tmp'")
    one.waiting_for(LogMessageWaitStrategy("up").with_startup_timeout(120))
    with one:
        assert int(one.get_exposed_port(80)) > 0
        code, output = one.exec(["cat", "/tmp/file"])
        assert (code, output) == (0, b"served\n")
        assert b"up\n" in one.get_logs()[0]
        kind = "microvm" if runtime == "microvm" else "container"
        assert runtime_of(engine, one.get_wrapped_container().name) == kind


def test_python_on_whales(engine: EngineProcess) -> None:
    from python_on_whales import DockerClient

    program = CURRENT if os.path.exists(CURRENT) else DOCKER
    client = DockerClient(host=f"unix://{engine.paths.socket}", client_call=[program])
    assert client.run(IMAGE, ["echo", "hi"], remove=True, runtime="kata") == "hi"
    one = client.run(IMAGE, list(ASLEEP), detach=True, name="whale", labels={"a": "b"})
    try:
        assert one.state.running and one.config.labels == {"a": "b"}
        assert one.execute(["echo", "in"]) == "in"
        assert [c.name for c in client.container.list(filters={"label": "a=b"})] == ["whale"]
        client.network.create("whales")
        client.network.connect("whales", one)
        assert "whales" in client.container.inspect("whale").network_settings.networks
    finally:
        one.remove(force=True)
        client.network.remove("whales")
