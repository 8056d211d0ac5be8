"""The engine as a process: starts once, tells systemd, stops, leaves instances alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gemel.host import mountns
from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root


def stop(engine: EngineProcess) -> int:
    """SIGTERM, and the exit code."""
    assert engine.process is not None
    engine.process.send_signal(signal.SIGTERM)
    status = engine.process.wait(60)
    engine.process = None
    return status


def test_instances_and_their_mounts_outlive_a_stop(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    folder = engine.paths.run / "mnt"
    made = engine.ok(
        "POST", "/containers/create?name=stays", {"Image": IMAGE, "Cmd": ["sleep", "1000"]}
    )
    engine.ok("POST", f"/containers/{made['Id']}/start")
    pid = engine.ok("GET", "/containers/stays/json")["State"]["Pid"]
    assert stop(engine) == 0
    assert not engine.paths.socket.exists()
    assert mountns.is_pinned(folder)
    command = Path(f"/proc/{pid}/cmdline")
    engine.settle(lambda: b"sleep" in command.read_bytes(), "the program is not loaded")
    engine.start()
    assert engine.ok("GET", "/containers/stays/json")["State"]["Pid"] == pid
    made = engine.ok("POST", "/containers/stays/exec", {"Cmd": ["ls", "/bin/sleep"]})
    engine.ok("POST", f"/exec/{made['Id']}/start", {"Tty": False})
    assert engine.ok("GET", f"/exec/{made['Id']}/json")["ExitCode"] == 0
    engine.ok("DELETE", "/containers/stays?force=1")
    assert stop(engine) == 0
    assert not mountns.is_pinned(folder)  # nothing is left, so the namespace is gone


def test_a_second_engine_is_refused_and_says_who_runs(fresh_engine: EngineProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gemel", "daemon"],
        env=fresh_engine.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert fresh_engine.process is not None
    assert f"process {fresh_engine.process.pid}" in done.stderr
    assert fresh_engine.call("GET", "/_ping")[0] == 200


def test_systemd_is_told(tmp_path: Path) -> None:
    engine = EngineProcess()
    address = engine.base / "notify"
    os.environ["NOTIFY_SOCKET"] = str(address)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(str(address))
            channel.settimeout(60)
            engine.start()
            assert channel.recv(4096).startswith(b"READY=1")
            engine.ok("POST", "/gemel/shutdown")
            assert channel.recv(4096) == b"STOPPING=1"
            assert engine.process is not None
            assert engine.process.wait(60) == 0
    finally:
        del os.environ["NOTIFY_SOCKET"]
        engine.stop()
