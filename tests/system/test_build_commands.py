"""Builds by gemel's commands and Compose files, and what a killed engine leaves of one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess
from tests.images import busybox_tar
from tests.system.test_build_inputs import files_with, web_of

pytestmark = pytest.mark.root

DOCKERFILE = f"""\
FROM {IMAGE}
COPY --from=more file /file
RUN --mount=type=secret,id=tok sha256sum < /run/secrets/tok > /sum; df -k /dev/shm > /shm
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && touch /agent || true
CMD ["cat", "/file", "/sum", "/shm"]
"""
#: For how long a step sleeps that is killed: a number that no other run's step has.
SECONDS = f"4321{os.getpid()}"
COMPOSE = f"""\
services:
  app:
    build:
      context: app
      secrets: [tok, {{source: text, target: other}}]
      shm_size: 8m
      ssh: ["default={{key}}"]
      additional_contexts: {{more: ./more, base: "service:base"}}
  base:
    build:
      context: .
      dockerfile_inline: |
        FROM {IMAGE}
        RUN echo base > /base
secrets:
  tok: {{file: ./tok}}
  text: {{environment: TEXT}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("app", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "app/Dockerfile").write_text(
        DOCKERFILE + "COPY --from=base /base /base\n"
        "RUN --mount=type=secret,id=other grep -q '^from .env$' /run/secrets/other\n"
    )
    (tmp_path / "more/file").write_text("from more\n")
    (tmp_path / "more/.dockerignore").write_text("left\n")
    (tmp_path / "tok").write_bytes(b"hush-hush")
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(key, check=True)
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("{key}", "./key"))
    (tmp_path / ".env").write_text("TEXT=from .env\n")
    return tmp_path


def test_a_compose_file_with_secrets_and_contexts(engine: EngineProcess, folder: Path) -> None:
    done = engine.gemel("-p", "built", "build", cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = engine.gemel("run", "--rm", "built-app", "cat", "/sum", "/shm", "/base").stdout
    assert hashlib.sha256(b"hush-hush").hexdigest() in lines
    assert " 8192 " in lines and "base" in lines
    found = engine.gemel("run", "--rm", "built-app", "ls", "/agent", check=False)
    assert found.stdout == "/agent\n"
    assert not files_with(engine.paths.root / "images", b"hush-hush")


def test_build_by_options(engine: EngineProcess, folder: Path) -> None:
    (folder / "app/Dockerfile").write_text(DOCKERFILE)
    options = ("--secret", f"id=tok,src={folder}/tok", "--shm-size", "9m", "--no-cache")
    engine.gemel(
        "build", "-m", "256m", "-t", "opt", *options,
        "--build-context", f"more={folder}/more", f"{folder}/app",
    )  # fmt: skip
    assert " 9216 " in engine.gemel("run", "--rm", "opt", "cat", "/shm").stdout
    for wrong, word in (
        (("--secret", "src=/x"), "no secret of a build"),
        (("--secret", "id=x,src=/nothing"), "cannot read the build's secret x"),
        (("--secret", "id=x,env=NOT_SET_HERE"), "which is not set"),
        (("--ssh", "default"), "no SSH agent"),
        (("--build-context", "more=/nothing"), "is no folder"),
    ):
        done = engine.gemel("image", "build", *wrong, str(folder / "app"), check=False)
        assert done.returncode != 0 and word in done.stderr, (wrong, done.stderr)


def test_what_of_a_build_is_not_done_is_told_with_its_line(
    engine: EngineProcess, folder: Path
) -> None:
    (folder / "app/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /x\n")
    text = (
        "services:\n  app:\n    image: arm\n    cgroup_parent: x\n    build:\n"
        "      context: app\n      platforms: [linux/arm64]\n      cache_from: ['type=gha']\n"
        "      entitlements: [security.insecure]\n"
    )
    (folder / "compose.yaml").write_text(text)
    told = engine.gemel("build", cwd=folder).stderr
    for line, word in ((8, "cache_from"), (9, "entitlements")):
        assert f"compose.yaml:{line}:7: services.app.build.{word} is ignored" in told, told
    assert "cgroup_parent" not in told and "platforms" not in told
    assert '"arm64"' in engine.gemel("image", "inspect", "arm").stdout
    (folder / "compose.yaml").write_text(text + "      network: some\n")
    done = engine.gemel("build", cwd=folder, check=False)
    assert done.returncode == 1 and "10:7: services.app.build.network is refused" in done.stderr


def test_images_and_builds_from_an_address(engine: EngineProcess, folder: Path) -> None:
    with web_of(folder) as url:
        (folder / "root.tar").write_bytes(busybox_tar())
        engine.gemel("image", "import", f"{url}/root.tar", "fetched")
        assert engine.gemel("run", "--rm", "fetched", "echo", "in").stdout == "in\n"
        (folder / "Remote").write_text(f"FROM {IMAGE}\nRUN echo far > /far\n")
        engine.gemel("build", "-t", "far", f"{url}/Remote")
        assert engine.gemel("run", "--rm", "far", "cat", "/far").stdout == "far\n"
        (folder / "compose.yaml").write_text(
            f"services:\n  far:\n    image: far2\n    build:\n      context: {url}/Remote\n"
        )
        engine.gemel("build", cwd=folder)
        assert engine.gemel("run", "--rm", "far2", "cat", "/far").stdout == "far\n"
        done = engine.gemel("build", f"{url}/nothing", check=False)
        assert done.returncode == 1 and "there is nothing at" in done.stderr, done.stderr


def test_a_killed_engine_leaves_nothing_of_a_build(
    fresh_engine: EngineProcess, folder: Path
) -> None:
    (folder / "app/Dockerfile").write_text(
        f"FROM {IMAGE}\n"
        f"RUN --mount=type=secret,id=tok cat /run/secrets/tok | wc -c; sleep {SECONDS}\n"
    )
    command = [sys.executable, "-m", "gemel", "build", "--secret", f"id=tok,src={folder}/tok"]
    client = subprocess.Popen(
        [*command, f"{folder}/app"], env=fresh_engine.env, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stderr is not None
    assert any(line.strip() == "9" for line in client.stderr)
    assert waited(sleeping)  # the line comes before the step's shell has started the program
    fresh_engine.kill_hard()
    client.communicate(timeout=60)
    assert waited(lambda: not sleeping())
    assert not files_with(fresh_engine.base, b"hush-hush")
    fresh_engine.start()
    assert not (fresh_engine.paths.images / "buildah").exists()
    (folder / "app/Dockerfile").write_text(f"FROM {IMAGE}\nRUN true\n")
    fresh_engine.gemel("build", "-t", "again", f"{folder}/app")


def waited(condition: Callable[[], object], seconds: float = 60) -> bool:
    """Whether it holds before that many seconds are over."""
    deadline = time.monotonic() + seconds
    while not (holds := bool(condition())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds


def sleeping() -> list[str]:
    """Processes of the step that sleeps."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"sleep\0{SECONDS}".encode() in path.read_bytes():
                found.append(str(path))
    return found
