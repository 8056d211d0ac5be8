"""The API of a real engine, held against docs/openapi.yaml: calls as they are, and at random."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import apifuzz, openapi
from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

#: Requests of each route, and the seconds after which the rest is left out.
EXAMPLES, SECONDS = 2, 30.0


def _memory(engine: EngineProcess) -> int:
    assert engine.process is not None
    rows = Path(f"/proc/{engine.process.pid}/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("VmRSS:"))) << 10


def _open_files(engine: EngineProcess) -> int:
    assert engine.process is not None
    return len(list(Path(f"/proc/{engine.process.pid}/fd").iterdir()))


def test_answers_are_as_described(engine: EngineProcess) -> None:
    made = engine.ok(
        "POST",
        "/containers/create?name=described",
        {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", "echo out; exec sleep 1000"],
            "ExposedPorts": {"81/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9},
            "HostConfig": {
                "Init": True,
                "Binds": ["described:/data"],
                "Tmpfs": {"/t": ""},
                "PortBindings": {"80/tcp": [{"HostPort": ""}]},
            },
        },
    )
    known = {"id": made["Id"]}
    engine.ok("POST", "/containers/described/start")
    ran = engine.ok("POST", "/containers/described/exec", {"Cmd": ["true"]})["Id"]
    engine.ok("POST", f"/exec/{ran}/start", {"Detach": True})
    engine.wait_for("healthy", name="described")
    calls = [
        ("GET", "/containers/json", "?all=1&size=1", known),
        ("GET", "/containers/{id}/json", "?size=1", known),
        ("GET", "/containers/{id}/top", "", known),
        ("GET", "/containers/{id}/stats", "?stream=0&one-shot=1", known),
        ("GET", "/containers/{id}/changes", "", known),
        ("GET", "/containers/{id}/logs", "?stdout=1", known),
        ("GET", "/containers/{id}/archive", "?path=/bin/sh", known),
        ("HEAD", "/containers/{id}/archive", "?path=/bin/sh", known),
        ("GET", "/containers/{id}/json", "", {"id": "nobody"}),
        ("POST", "/containers/{id}/start", "", known),
        ("POST", "/containers/{id}/update", "", known),
        ("GET", "/exec/{id}/json", "", {"id": ran}),
        ("POST", "/commit", f"?container={made['Id']}&repo=committed", {}),
        ("GET", "/images/json", "", {}),
        ("GET", "/images/{name}/json", "", {"name": IMAGE}),
        ("GET", "/images/{name}/history", "", {"name": IMAGE}),
        ("DELETE", "/images/{name}", "", {"name": "committed"}),
        ("GET", "/images/search", "?term=a", {}),
        ("GET", "/networks", "", {}),
        ("GET", "/networks/{id}", "", {"id": "bridge"}),
        ("GET", "/networks/{id}", "", {"id": "host"}),
        ("GET", "/volumes", "", {}),
        ("GET", "/volumes/{name}", "", {"name": "described"}),
        ("POST", "/volumes/create", "", {}),
        ("POST", "/containers/prune", "", {}),
        ("POST", "/images/prune", "", {}),
        ("POST", "/networks/prune", "", {}),
        ("POST", "/volumes/prune", "", {}),
        ("POST", "/build/prune", "", {}),
        ("GET", "/_ping", "", {}),
        ("GET", "/info", "", {}),
        ("GET", "/version", "", {}),
        ("GET", "/system/df", "", {}),
        ("GET", "/system/df", "?type=volume", {}),
        ("GET", "/events", f"?since=1&until={time.time() + 0.1}", {}),
        ("GET", "/gemel/doctor", "", {}),
        ("GET", "/gemel/kernels", "", {}),
        ("GET", "/gemel/metrics", "", {}),
        ("GET", "/gemel/faults", "", {}),
        ("GET", "/gemel/containers/{id}/why", "", known),
        ("POST", "/containers/{id}/stop", "?t=5", known),
        ("POST", "/containers/{id}/stop", "", known),
        ("POST", "/containers/{id}/wait", "", known),
        ("GET", "/containers/{id}/json", "", known),
        ("DELETE", "/containers/{id}", "?v=1", known),
    ]
    wrong = []
    for method, path, query, names in calls:
        answer = engine.answer(method, path.format(**names) + query)
        if why := openapi.problem(method, path, *answer):
            wrong.append(f"{method} {path}{query}: {answer[0]}: {why}")
    assert not wrong, "\n".join(wrong)


def test_whatever_is_asked_gets_an_answer(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    before = _open_files(engine), _memory(engine)
    fuzzer = apifuzz.Fuzzer(engine, 1)
    fuzzer.run(EXAMPLES, SECONDS)
    assert fuzzer.statuses, "nothing was asked"
    assert not fuzzer.failures, "\n".join(f"{f.request}\n    {f.why}" for f in fuzzer.failures)
    assert "Traceback" not in engine.log.read_text(errors="replace")
    engine.ok("GET", "/_ping")
    engine.settle(lambda: _open_files(engine) <= before[0] + 60, "descriptors are left open")
    assert _memory(engine) < before[1] + (80 << 20)
