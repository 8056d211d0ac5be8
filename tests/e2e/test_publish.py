"""``gemel publish`` and ``-f oci://`` with a real registry that wants a password; Compose v2."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gemel.cli.main import call
from tests import fetch_clients
from tests.engine import CACHE, IMAGE, EngineProcess
from tests.imagestore import HTPASSWD, free_port

pytestmark = pytest.mark.root

COMPOSE2 = str(fetch_clients.compose(CACHE))
#: Compose's own word for registries without TLS.
PLAIN = {"__TEST__INSECURE__REGISTRY__": "1"}

FILES = {
    "compose.yaml": f"""
name: published
services:
  web:
    extends:
      file: base/base.yaml
      service: base
    command: ["sh", "-c", "echo $$A $$B ${{WORD:-hello}}; exec sleep 1000"]
    env_file: ./web.env
  two: {{image: {IMAGE}, command: ["sleep", "1000"], stop_grace_period: 1s}}
""",
    "base/base.yaml": f"""
services:
  base:
    image: {IMAGE}
    env_file: [own.env]
    stop_grace_period: 1s
""",
    "base/own.env": "B=from-base\n",
    "web.env": "A=from-web\n",
}


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the registry did not start"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry; user "user", password "secret"."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    (folder / "htpasswd").write_text(HTPASSWD)
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


class Said(NamedTuple):
    stdout: str
    stderr: str


class User:
    """Somebody with folders of their own, logged in or not."""

    def __init__(
        self,
        engine: EngineProcess,
        folder: Path,
        registry: str,
        patch: pytest.MonkeyPatch,
        capture: pytest.CaptureFixture[str],
    ) -> None:
        self.engine = engine
        self.registry = registry
        self.patch = patch
        self.capture = capture
        self.config = folder / "docker"
        self.config.mkdir()
        self.cache = folder / "cache"
        self.env = {"XDG_CACHE_HOME": str(self.cache), "DOCKER_CONFIG": str(self.config)}

    def login(self) -> None:
        """As docker login leaves it."""
        auth = base64.b64encode(b"user:secret").decode()
        config = {"auths": {self.registry: {"auth": auth}}}
        (self.config / "config.json").write_text(json.dumps(config))

    def gemel(self, *words: str, cwd: Path, status: int = 0, input: str = "") -> Said:
        """The command line, within this process: starting one takes longer than most calls."""
        for name, value in self.env.items():
            self.patch.setenv(name, value)
        self.patch.chdir(cwd)
        self.patch.setattr(sys, "stdin", io.StringIO(input))
        self.capture.readouterr()
        code = call(["--host", f"unix://{self.engine.paths.socket}", *words])
        said = Said(*self.capture.readouterr())
        assert code == status, (words, code, said)
        return said

    def compose(self, *words: str, cwd: Path) -> str:
        """Compose v2; its standard output."""
        if not os.path.exists(COMPOSE2):
            pytest.skip("Compose v2 could not be fetched from Debian's later suites")
        env = {**self.engine.env, **self.env, **PLAIN}
        done = subprocess.run(
            [COMPOSE2, *words],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def user(
    engine: EngineProcess,
    tmp_path: Path,
    registry: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> User:
    return User(engine, tmp_path, registry, monkeypatch, capsys)


def written(folder: Path, files: dict[str, str] = FILES) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_from_one_machine_to_another(user: User, tmp_path: Path) -> None:
    here = written(tmp_path / "here")
    away = tmp_path / "away"
    away.mkdir()
    name = f"{user.registry}/team/app:v1"
    denied = user.gemel("publish", name, "--with-env", "-y", cwd=here, status=1)
    assert "docker login" in denied.stderr and "published" not in denied.stderr
    user.login()
    done = user.gemel("publish", name, "--with-env", "-y", cwd=here)
    reference = done.stdout.strip()
    assert reference.startswith(f"oci://{name}@sha256:")
    assert f"{name} published" in done.stderr

    remote = ("-f", f"oci://{name}")
    try:
        up = user.gemel(*remote, "up", "-d", cwd=away, input="")
        assert "WORD" in up.stderr and "Do you want to proceed with these variables?" in up.stderr
        logs = ("logs", "--no-log-prefix", "web")
        user.engine.settle(
            lambda: "from-web from-base hello" in user.gemel(*remote, *logs, cwd=away).stdout,
            "the service has not got its variables",
        )
        again = user.gemel(*remote, "up", "-d", "-y", cwd=away)  # nothing is left to do
        assert "Creat" not in again.stderr and "proceed" not in again.stderr
    finally:
        user.gemel("-p", "published", "down", "-t", "1", cwd=away)

    # what is here by its digest wants neither registry nor credentials
    (user.config / "config.json").unlink()
    user.gemel(*remote, "config", "-q", cwd=away, status=1)
    user.gemel("-f", reference, "config", "-q", cwd=away)
    digest = reference.partition("@")[2]
    user.gemel("-f", f"oci://127.0.0.1:1/x@{digest}", "config", "-q", cwd=away)


def test_compose_reads_what_gemel_publishes_and_the_other_way_round(
    user: User, tmp_path: Path
) -> None:
    here = written(tmp_path / "here")
    away = tmp_path / "away"
    written(away, {"mine.yaml": "services: {two: {volumes: ['./data:/data']}}\n"})
    user.login()
    local = json.loads(user.gemel("config", "--format", "json", cwd=here).stdout)
    for version in ("1.1", "1.0"):
        name = f"{user.registry}/by/gemel:{version}"
        user.gemel("publish", name, "--with-env", "-y", "--oci-version", version, cwd=here)
        assert (
            json.loads(user.compose("-f", f"oci://{name}", "config", "--format", "json", cwd=away))
            == local
        ), version
    # Compose 2.40 panics at the env_file of what is extended
    base = FILES["base/base.yaml"].replace("    env_file: [own.env]\n", "")
    (here / "base" / "base.yaml").write_text(base)
    name = f"{user.registry}/by/compose:1"
    user.compose("publish", name, "--with-env", "-y", cwd=here)
    for files in ([f"oci://{name}"], [f"oci://{name}", "mine.yaml"]):
        words = [word for file in files for word in ("-f", file)]
        mine = user.gemel(*words, "config", cwd=away).stdout
        theirs = user.compose(*words, "config", cwd=away)
        assert mine.replace("/gemel/compose/", "/docker-compose/") == theirs
    # each has a cache of its own
    assert (user.cache / "gemel").is_dir() and (user.cache / "docker-compose").is_dir()


def test_files_that_include_and_extend_what_is_in_a_registry(user: User, tmp_path: Path) -> None:
    here = written(tmp_path / "here")
    user.login()
    name = f"{user.registry}/team/parts"
    digest = user.gemel("publish", name, "--with-env", "-y", cwd=here).stdout.strip()
    away = written(
        tmp_path / "away",
        {
            "including.yaml": f"include: ['oci://{name}']\nservices: {{c: {{image: c}}}}\n",
            "extending.yaml": f"services: {{e: {{extends: {{file: '{digest}', service: web}}}}}}\n",
            "wrong.yaml": f"services: {{a: {{image: x}}}}\ninclude: ['oci://{name}:none']\n",
        },
    )
    names = user.gemel("-f", "including.yaml", "config", "--services", cwd=away).stdout.split()
    assert sorted(names) == ["c", "two", "web"]
    found = json.loads(
        user.gemel("-f", "extending.yaml", "config", "--format", "json", cwd=away).stdout
    )
    assert found["services"]["e"]["environment"] == {"A": "from-web", "B": "from-base"}
    wrong = user.gemel("-f", "wrong.yaml", "config", cwd=away, status=1)
    assert "wrong.yaml:2:11" in wrong.stderr and f"oci://{name}:none" in wrong.stderr
    # and what includes it is published with the reference, for others
    outer = f"{user.registry}/team/outer"
    user.gemel("-f", "including.yaml", "publish", outer, "-y", cwd=away)
    asked = user.gemel("-f", f"oci://{outer}", "up", "-d", cwd=tmp_path, status=1, input="n\n")
    assert f"  - oci://{name}\n" in asked.stderr and "operation cancelled by user" in asked.stderr


def test_what_is_no_compose_project_is_refused_with_words(user: User, tmp_path: Path) -> None:
    user.login()
    image = f"{user.registry}/team/image:1"
    user.gemel("image", "tag", IMAGE, image, cwd=tmp_path)
    user.gemel("image", "push", image, cwd=tmp_path)
    said = user.gemel("-f", f"oci://{image}", "config", cwd=tmp_path, status=1).stderr
    assert f"cannot read oci://{image}" in said and "is an image" in said
    said = user.gemel("-f", f"oci://{image}0", "config", cwd=tmp_path, status=1).stderr
    assert f"cannot read oci://{image}0" in said and "not found" in said
    said = user.gemel("-f", "oci://127.0.0.1:1/x", "ps", cwd=tmp_path, status=1).stderr
    assert "cannot reach the registry 127.0.0.1:1" in said and "check the network" in said
    assert "bootstrap" not in said
    status, told = user.engine.call("POST", "/gemel/artifacts/x/y", {"Manifest": "?", "Blobs": []})
    assert status == 400 and "not base64" in told["message"]
    said = user.gemel("-f", "oci://UPPER", "config", cwd=tmp_path, status=1).stderr
    assert "must be lowercase" in said
    user.gemel("image", "rm", image, cwd=tmp_path)


def test_pinned_images(user: User, tmp_path: Path) -> None:
    user.login()
    image = f"{user.registry}/team/pinned:1"
    user.gemel("image", "tag", IMAGE, image, cwd=tmp_path)
    user.gemel("image", "push", image, cwd=tmp_path)
    here = written(tmp_path / "here", {"compose.yaml": f"services: {{a: {{image: {image}}}}}\n"})
    name = f"{user.registry}/team/pins"
    user.gemel("publish", "--resolve-image-digests", name, cwd=here)
    found = user.gemel("-f", f"oci://{name}", "config", "--images", cwd=tmp_path).stdout.strip()
    assert found.startswith(f"{image}@sha256:")
    user.gemel("image", "rm", image, cwd=tmp_path)
