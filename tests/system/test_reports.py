"""What is kept of instances that fail, and what `why` says of it."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.engine import EngineProcess

pytestmark = pytest.mark.root

COMPOSE = """\
name: failing
services:
  api:
    image: test/busybox
    command: [sh, -c, "echo begun; echo token=hush12345; sleep 0.2; echo it broke >&2; exit 3"]
    environment:
      DB_PASSWORD: hush
      COLOUR: blue
"""


def newest(engine: EngineProcess, name: str) -> Any:
    """The newest report of a container, once it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for one in engine.ok("GET", "/gemel/reports"):
            if one["Name"] == name:
                return engine.ok("GET", f"/gemel/reports/{one['Id']}")
        time.sleep(0.05)
    raise AssertionError(f"no report of {name}: {engine.log.read_text()[-2000:]}")


def test_an_exit_with_an_error(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    engine.gemel("up", "-d", cwd=tmp_path)
    engine.wait_for("exited", name="failing-api-1")
    found = newest(engine, "failing-api-1")
    assert (found["Kind"], found["ExitCode"], found["Service"]) == ("exit", 3, "api")
    assert {"DB_PASSWORD=***", "COLOUR=blue"} <= set(found["Environment"])
    assert "hush" not in json.dumps(found)
    told = engine.gemel("why", "api", cwd=tmp_path).stdout
    assert "a report is kept" in told and "it broke" in told
    listed = engine.gemel("report", "list", cwd=tmp_path).stdout
    assert "failing-api-1" in listed
    engine.gemel("down", cwd=tmp_path)
    # the report outlives its container
    engine.gemel("report", "api", "-o", "out.zip", cwd=tmp_path)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        text = archive.read(names["log.txt"]).decode()
    assert "stderr it broke" in text and "hush" not in text
    again = engine.gemel("report", "api", "-o", "out.zip", cwd=tmp_path, check=False)
    assert again.returncode == 1 and "there already" in again.stderr


def test_an_end_that_was_asked_for_is_none(engine: EngineProcess) -> None:
    engine.gemel("run", "-d", "--name", "asked", "test/busybox", "sleep", "1000")
    engine.gemel("stop", "-t", "0", "asked")
    engine.gemel("run", "-d", "--name", "good", "test/busybox", "true")
    engine.wait_for("exited", name="good")
    names = {one["Name"] for one in engine.ok("GET", "/gemel/reports")}
    assert not names & {"asked", "good"}
    engine.gemel("rm", "-f", "asked", "good")


def test_out_of_memory(engine: EngineProcess) -> None:
    script = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}"
    engine.gemel("run", "-d", "--name", "greedy", "-m", "16m", "test/busybox", "sh", "-c", script)
    engine.wait_for("exited", name="greedy")
    found = newest(engine, "greedy")
    assert found["Kind"] == "oom" and found["OOMKilled"]
    assert "16 MiB" in found["Reasons"][0]
    assert found["Memory"].startswith("at most 1") and "of 16 MiB" in found["Memory"]
    engine.gemel("rm", "-f", "greedy")


def test_a_guest_whose_kernel_panics(engine: EngineProcess, tmp_path: Path) -> None:
    script = "sleep 1; echo c > /proc/sysrq-trigger"
    run = ("run", "-d", "--privileged", "--runtime", "microvm", "--name", "panics")
    engine.gemel(*run, "test/busybox", "sh", "-c", script)
    found = newest(engine, "panics")
    assert (found["Kind"], found["Runtime"]) == ("panic", "microvm")
    told = engine.gemel("why", "panics").stdout
    assert "ended by itself: Kernel panic - not syncing: sysrq triggered crash" in told
    engine.gemel("report", "panics", "-o", str(tmp_path / "out.zip"))
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        console = archive.read(names["console.txt"]).decode()
    assert "sysrq: Trigger a crash" in console and "Call Trace" in console
    engine.gemel("rm", "-f", "panics")


def test_a_guest_that_is_gone(engine: EngineProcess) -> None:
    """The VMM killed is as a guest that panics: the report has the guest's last words."""
    run = ("run", "-d", "--runtime", "microvm", "--name", "guest", "test/busybox", "sleep", "1000")
    engine.gemel(*run)
    os.kill(engine.ok("GET", "/containers/guest/json")["State"]["Pid"], signal.SIGKILL)
    engine.wait_for("exited", name="guest")
    found = newest(engine, "guest")
    assert found["Kind"] == "panic" and found["Runtime"] == "microvm"
    with zipfile.ZipFile(_archive(engine, found["Id"])) as archive:
        console = archive.read(f"{found['Id']}/console.txt").decode()
    assert "the service has started" in console
    engine.gemel("rm", "-f", "guest")


def _archive(engine: EngineProcess, id: str) -> Path:
    path = engine.base / f"{id}.zip"
    engine.gemel("report", id, "-o", str(path))
    return path
