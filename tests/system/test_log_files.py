"""Logs are kept within limits in both runtimes, and shown as one, in order, by what they say."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

LIMITED = {"Type": "json-file", "Config": {"max-size": "200k", "max-file": "3"}}


def run(engine: EngineProcess, name: str, script: str, **host: object) -> str:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": host}
    made = engine.ok("POST", f"/containers/create?name={name}", body)
    engine.ok("POST", f"/containers/{name}/start")
    return str(made["Id"])


def seen(folder: Path, number: int) -> bool:
    """Whether the log has this line, and the engine holds the file that it is in."""
    log, held = folder / "log", folder / "log.0"
    if not log.exists() or not held.exists() or not log.samefile(held):
        return False
    return any(line.endswith(b" %d" % number) for line in log.read_bytes().splitlines())


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_old_files_are_kept_and_bounded(engine: EngineProcess, runtime: str) -> None:
    script = "n=0; while [ $n -lt 12 ]; do seq $((n*1000+1)) $((n*1000+1000)); n=$((n+1)); " \
             "until [ -e /tmp/$n ]; do sleep 0.1; done; done"  # fmt: skip
    id = run(engine, f"flood-{runtime}", script, LogConfig=LIMITED, Runtime=runtime)
    folder = engine.paths.instance(id)
    for n in range(1, 13):  # no faster than the engine sees every file
        engine.settle(lambda n=n: seen(folder, n * 1000), f"part {n} does not come", 120)
        made = engine.ok("POST", f"/containers/{id}/exec", {"Cmd": ["touch", f"/tmp/{n}"]})
        engine.ok("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    engine.ok("POST", f"/containers/{id}/wait", timeout=120)
    names = {path.name for path in folder.iterdir() if path.name.startswith("log")}
    assert names == {"log", "log.0", "log.1", "log.2"}
    assert sum(path.stat().st_size for path in folder.glob("log.[12]")) < 1_000_000
    shown = [int(row) for row in engine.gemel("logs", id).stdout.split()]
    assert shown == list(range(shown[0], 12_001))
    assert len(shown) > 4000
    tail = engine.gemel("logs", "--tail", "4000", id).stdout.split()
    assert [int(row) for row in tail] == list(range(8001, 12_001))
    engine.ok("DELETE", f"/containers/{id}?force=1")
    assert not folder.exists()


def test_lines_of_services_by_time_level_and_field(engine: EngineProcess, tmp_path: Path) -> None:
    talk = (
        'for n in 1 2 3 4 5; do echo \'{{"level":"{}","n":\'$n\'}}\'; sleep 0.2; done; '
        "echo plain; sleep 1000"
    )
    (tmp_path / "compose.yaml").write_text(
        json.dumps(
            {
                "services": {
                    name: {"image": "test/busybox", "command": ["sh", "-c", talk.format(level)]}
                    for name, level in (("one", "info"), ("two", "warning"))
                }
            }
        ).replace("$n", "$$n")
    )
    logs = ("-p", "talk", "logs")
    engine.gemel("-p", "talk", "up", "-d", cwd=tmp_path)
    deadline = time.monotonic() + 90
    while engine.gemel(*logs).stdout.count("plain") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    entries = [
        json.loads(row) for row in engine.gemel(*logs, "--format", "json").stdout.split("\n") if row
    ]
    assert [one["Time"] for one in entries] == sorted(one["Time"] for one in entries)
    assert {one["Service"] for one in entries[:4]} == {"one", "two"}
    assert entries[0]["Fields"]["n"] == 1
    warnings = engine.gemel(*logs, "--level", "warn").stdout
    assert warnings.count("two-1") == 5
    assert "one-1" not in warnings
    picked = engine.gemel(*logs, "--json-field", "n=3", "--grep", "inf").stdout.splitlines()
    assert len(picked) == 1 and picked[0].startswith("one-1")
    wrong = engine.gemel(*logs, "--level", "loud", check=False)
    assert wrong.returncode != 0 and "`loud` is no level" in wrong.stderr
    events = ("-p", "talk", "events", "--since", "10m", "--until", "0s", "--format")
    told = [json.loads(row) for row in engine.gemel(*events, "json").stdout.splitlines()]
    assert "start" in {event["Action"] for event in told}
    assert "container start" in engine.gemel(*events, "{{.Type}} {{.Action}}").stdout
    engine.gemel("-p", "talk", "down", "-t", "0", cwd=tmp_path)
