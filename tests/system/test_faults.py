"""Faults between two services, and figures, with a real engine."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

WEB = "mkdir -p /www; echo hi > /www/index.html; exec httpd -f -p 80 -h /www"
ASK = "{ printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.3; } | nc -w 2 web 80"


def run(engine: EngineProcess, name: str, *argv: str) -> None:
    host: dict[str, Any] = {"NetworkMode": "faulty"}
    body = {"Image": IMAGE, "Cmd": list(argv), "HostConfig": host}
    made = engine.ok("POST", f"/containers/create?name={name}", body)
    engine.ok("POST", f"/containers/{made['Id']}/start")


def answers(engine: EngineProcess) -> bool:
    done = engine.gemel("exec", "-T", "asker", "sh", "-c", ASK, check=False)
    return "hi" in done.stdout


def until_it_answers(engine: EngineProcess) -> None:
    deadline = time.monotonic() + 40
    while not answers(engine):
        assert time.monotonic() < deadline, "no answer"


def test_a_fault_holds_ends_and_is_gone_with_the_engine(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    engine.ok("POST", "/networks/create", {"Name": "faulty"})
    run(engine, "web", "sh", "-c", WEB)
    run(engine, "asker", "sleep", "1000")
    until_it_answers(engine)
    assert "down between" in engine.gemel("fault", "add", "asker", "web", "--down").stdout
    assert not answers(engine)
    assert "asker ↔ web" in engine.gemel("fault", "list").stdout
    assert "1 fault ended" in engine.gemel("fault", "clear").stdout
    until_it_answers(engine)
    engine.gemel("fault", "add", "web", "asker", "--loss", "100%", "--for", "4s")
    until_it_answers(engine)  # it ends by itself
    assert engine.ok("GET", "/gemel/faults") == []
    engine.gemel("fault", "add", "asker", "web", "--down")
    engine.kill_hard()
    engine.start()
    until_it_answers(engine)
    refused = engine.gemel("fault", "add", "asker", "web", "--latency", "300ms", check=False)
    assert refused.returncode != 0
    assert "sch_netem" in refused.stderr
    for name in ("web", "asker"):
        engine.ok("DELETE", f"/containers/{name}?force=1")


SAMPLE = re.compile(
    r'[a-z_][a-z0-9_]*(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? -?[0-9.e+-]+|# (HELP|TYPE) [a-z_]+ .+'
)


def test_metrics(engine: EngineProcess) -> None:
    engine.ok("POST", "/gemel/traffic")
    engine.ok("POST", "/networks/create", {"Name": "faulty"})
    run(engine, "web", "sh", "-c", WEB)
    run(engine, "asker", "sleep", "1000")
    until_it_answers(engine)
    deadline = time.monotonic() + 20
    edge = 'source="asker",target="web",protocol="http",code="200"'
    while edge not in (text := engine.gemel("metrics").stdout):
        assert time.monotonic() < deadline, text
    lines = text.splitlines()
    assert [line for line in lines if not SAMPLE.fullmatch(line)] == []
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    samples = [line for line in lines if not line.startswith("#")]
    assert len({line.rpartition(" ")[0] for line in samples}) == len(samples)
    values = dict(line.rsplit(" ", 1) for line in samples)
    who = 'name="web",service="",project="",runtime="container"'
    assert values[f"gemel_instance_up{{{who}}}"] == "1"
    assert float(values[f"gemel_instance_memory_bytes{{{who}}}"]) > 0
    calls = float(values[f"gemel_call_duration_seconds_count{{{edge}}}"])
    assert calls >= 1
    assert float(values[f'gemel_call_duration_seconds_bucket{{{edge},le="+Inf"}}']) == calls
    for name in ("web", "asker"):
        engine.ok("DELETE", f"/containers/{name}?force=1")
    engine.ok("DELETE", "/networks/faulty")
    engine.ok("DELETE", "/gemel/traffic")
