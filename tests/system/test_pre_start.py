"""pre_start: steps that run before a service is started of which nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

FILE = """\
name: pre
services:
  db:
    image: IMAGE
    command: sleep 600
    stop_grace_period: 0s
  app:
    image: IMAGE
    user: "1000"
    environment: {A: "1"}
    command: sh -c "cat /data/steps; trap exit TERM; while :; do sleep 0.1; done"
    stop_grace_period: 0s
    depends_on: [db]
    volumes: ["data:/data"]
    pre_start:
      - {command: ["sh", "-c", "nslookup db >/dev/null && echo one $$A $$B >> /data/steps"],
         user: root, environment: {B: "2"}}
      - {command: ["sh", "-c", "CHECK"], user: root, image: helper}
volumes: {data: {}}
"""


@pytest.fixture
def folder(engine: EngineProcess, tmp_path: Path) -> Iterator[Path]:
    engine.gemel("image", "tag", IMAGE, "helper")
    write(tmp_path)
    yield tmp_path
    engine.gemel("down", "-v", "-t", "0", cwd=tmp_path)


def write(folder: Path, check: str = "echo two >> /data/steps") -> None:
    text = FILE.replace("IMAGE", IMAGE).replace("CHECK", check)
    (folder / "compose.yaml").write_text(text)


def told(engine: EngineProcess, folder: Path) -> list[str]:
    return engine.gemel("exec", "-T", "app", "cat", "/data/steps", cwd=folder).stdout.splitlines()


def test_steps_run_in_order_before_the_service_with_its_mounts_and_networks(
    engine: EngineProcess, folder: Path
) -> None:
    up = engine.gemel("up", "-d", cwd=folder)
    assert "pre-app-pre_start-1" in up.stderr
    assert told(engine, folder) == ["one 1 2", "two"]
    names = engine.gemel("ps", "-a", "--format", "{{.Name}}", cwd=folder).stdout.split()
    assert sorted(names) == ["pre-app-1", "pre-db-1"]
    assert "pre_start" not in engine.gemel("container", "ls", "-a", cwd=folder).stdout


def test_they_run_once_and_again_for_what_is_made_anew(engine: EngineProcess, folder: Path) -> None:
    engine.gemel("create", cwd=folder)
    engine.gemel("start", cwd=folder)
    engine.gemel("up", "-d", cwd=folder)
    engine.gemel("start", cwd=folder)
    engine.gemel("up", "-d", "--scale", "app=2", cwd=folder)
    assert told(engine, folder) == ["one 1 2", "two"]
    engine.gemel("stop", "-t", "0", "app", cwd=folder)
    engine.gemel("start", "app", cwd=folder)
    assert told(engine, folder) == ["one 1 2", "two"] * 2
    engine.gemel("up", "-d", "--scale", "app=2", "--force-recreate", cwd=folder)
    assert told(engine, folder) == ["one 1 2", "two"] * 3
    file = folder / "compose.yaml"
    file.write_text(file.read_text().replace('A: "1"', 'A: "3"'))
    engine.gemel("update", "app", cwd=folder)
    assert told(engine, folder) == ["one 1 2", "two"] * 3 + ["one 3 2", "two"]


def test_a_step_that_fails_keeps_the_service_from_starting_and_is_tried_again(
    engine: EngineProcess, folder: Path
) -> None:
    write(folder, check="echo no such table; exit 3")
    done = engine.gemel("up", "-d", "--keep", cwd=folder, check=False)
    assert done.returncode == 1, done.stderr
    assert "pre_start step 1 of app failed with exit code 3" in done.stderr
    assert "no such table" in done.stderr
    states = engine.gemel("ps", "-a", "--format", "{{.Name}} {{.State}}", cwd=folder).stdout
    assert "pre-app-1 created" in states
    write(folder)
    engine.gemel("up", "-d", cwd=folder)
    assert told(engine, folder)[-2:] == ["one 1 2", "two"]
