"""Faults between two services, and figures, with a real engine."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

WEB = "mkdir -p /www; echo hi > /www/index.html; exec httpd -f -p 80 -h /www"
ASK = "{ printf 'GET / HTTP/1.0\r\n\r\n'; sleep 0.3; } | nc -w 2 web 80"


def run(
    engine: EngineProcess,
    name: str,
    *argv: str,
    runtime: str = "container",
    replica: tuple[str, str] | None = None,
) -> None:
    """replica: service and number of it, of the project p; the service is its alias."""
    host: dict[str, Any] = {"NetworkMode": "faulty", "Runtime": runtime}
    body: dict[str, Any] = {"Image": IMAGE, "Cmd": list(argv), "HostConfig": host}
    if replica is not None:
        place = {"project": "p", "service": replica[0], "container-number": replica[1]}
        body["Labels"] = {f"com.docker.compose.{key}": value for key, value in place.items()}
        ends = {"faulty": {"Aliases": [replica[0]]}}
        body["NetworkingConfig"] = {"EndpointsConfig": ends}
    made = engine.ok("POST", f"/containers/create?name={name}", body)
    engine.ok("POST", f"/containers/{made['Id']}/start")


def answers(engine: EngineProcess) -> bool:
    done = engine.gemel("exec", "-T", "asker", "sh", "-c", ASK, check=False)
    return "hi" in done.stdout


def until_it_answers(engine: EngineProcess) -> None:
    deadline = time.monotonic() + 120
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
    engine.settle(lambda: engine.ok("GET", "/gemel/faults") == [], "it is still told")
    engine.gemel("fault", "add", "asker", "web", "--down")
    engine.kill_hard()
    engine.start()
    until_it_answers(engine)
    assert engine.ok("GET", "/gemel/faults") == []
    for name in ("web", "asker"):
        engine.ok("DELETE", f"/containers/{name}?force=1")


def fetch(engine: EngineProcess) -> tuple[float, str]:
    """Seconds that a GET by the asker takes, and what it got or its complaint."""
    shell = "start=$(cut -d' ' -f1 /proc/uptime); printf 'GET / HTTP/1.0\r\n\r\n' | "
    shell += "nc -w 20 web 80; echo; echo $start $(cut -d' ' -f1 /proc/uptime)"
    out = engine.gemel("exec", "-T", "asker", "sh", "-c", shell, check=False).stdout.split("\n")
    begin, end = out[-2].split()
    return float(end) - float(begin), "\n".join(out[:-2]).strip()


def patient(engine: EngineProcess) -> str:
    """What a GET gets that waits for 6 s."""
    shell = ASK.replace("sleep 0.3", "sleep 6").replace("-w 2", "-w 10")
    return engine.gemel("exec", "-T", "asker", "sh", "-c", shell, check=False).stdout.strip()


def met(engine: EngineProcess) -> list[tuple[int | None, list[dict[str, Any]]]]:
    """Status and faults of the calls that are recorded, oldest first, once there are some."""
    deadline = time.monotonic() + 60
    while True:
        lines = engine.gemel("traffic", "--all", "--to", "web", "--format", "json").stdout
        calls = [json.loads(line) for line in lines.splitlines()]
        if any(call.get("faults") for call in calls):
            return [(call["status"], call.get("faults", [])) for call in calls]
        assert time.monotonic() < deadline, lines
        time.sleep(0.3)


def marked(engine: EngineProcess, words: str) -> None:
    """The newest call and trace that met a fault tell it; they are seen a moment later."""
    told: Any = None

    def holds() -> bool:
        nonlocal told
        found = [faults for _, faults in met(engine) if faults]
        table = engine.gemel("traffic", "--all", "--to", "web").stdout
        rows = [line for line in table.splitlines() if f"⚡ {words}" in line]
        told = found, table
        if found[-1][-1]["Fault"] != words or not rows:
            return False
        if not rows[-1].endswith(words if found[-1][-1]["Sure"] else f"{words} ~"):
            return False
        mark = f"⚡ fault {found[-1][-1]['Id']}: {words}"
        whole = engine.gemel("traffic", "show", rows[-1].split()[0]).stdout
        told = mark, whole
        return mark in whole and any(mark in one for one in drawn(engine))

    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, told
        time.sleep(0.3)


def drawn(engine: EngineProcess) -> Iterator[str]:
    """The newest traces, drawn."""
    for line in engine.gemel("traces", "--all", "-n", "5", "--format", "json").stdout.splitlines():
        yield engine.gemel("trace", json.loads(line)["Id"], check=False).stdout


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_delays_and_http_faults(engine: EngineProcess, runtime: str) -> None:
    """Between a container or a micro VM that asks and a container that answers."""
    engine.call("POST", "/networks/create", {"Name": "faulty"})
    run(engine, "web", "sh", "-c", WEB)
    run(engine, "asker", "sleep", "1000", runtime=runtime)
    try:
        until_it_answers(engine)
        engine.ok("POST", "/gemel/traffic")
        made = engine.gemel("fault", "add", "asker", "web", "--latency", "1s", "--jitter", "100ms")
        assert "latency 1000ms ± 100ms between" in made.stdout
        took, got = fetch(engine)
        assert took >= 0.8 and got.endswith("hi")
        marked(engine, "latency 1000ms ± 100ms")
        time.sleep(8)  # longer than the kernel holds it by itself
        assert fetch(engine)[0] >= 0.8
        engine.gemel("fault", "clear")
        assert fetch(engine)[1].endswith("hi")
        engine.gemel("fault", "add", "asker", "web", "--http-status", "503", "--port", "80")
        assert "503 Service" in patient(engine)
        marked(engine, "HTTP 503, port 80")
        assert "asker → web" in engine.gemel("fault", "list").stdout
        engine.gemel("fault", "clear")
        engine.gemel("fault", "add", "asker", "web", "--http-delay", "3s", "--for", "60s")
        assert not answers(engine)  # it hangs up after 0.3 s: there is a head, and no body yet
        assert patient(engine).endswith("hi")
        marked(engine, "body 3s late")
        engine.gemel("fault", "clear")
        assert fetch(engine)[1].endswith("hi")
        engine.settle(lambda: met(engine)[-1] == (200, []), "the last call met no fault")
    finally:
        engine.ok("DELETE", "/gemel/traffic")
        engine.call("DELETE", "/gemel/faults")
        for name in ("web", "asker"):
            engine.ok("DELETE", f"/containers/{name}?force=1")


#: Answers what is answered by the address that it is given.
PASS = r"""
mkdir -p /www/cgi-bin
echo hi > /www/index.html
cat > /www/cgi-bin/pass <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
exec timeout 40 wget -qO- "http://${QUERY_STRING%%&*}/"
END
chmod +x /www/cgi-bin/pass
exec httpd -f -p 80 -h /www
"""


def address(engine: EngineProcess, name: str) -> str:
    """Asked in a service: the resolver of a static busybox is not to be relied on elsewhere."""
    look = f"nslookup {name} | sed -n '3,$s/^Address[^:]*: //p'"
    deadline = time.monotonic() + 60
    while not (found := engine.gemel("exec", "-T", "near", "sh", "-c", look).stdout.strip()):
        assert time.monotonic() < deadline, f"{name} has no address"
    return found


def asked(engine: EngineProcess, name: str, url: str) -> str:
    """What an instance gets for a URL, errors of HTTP included."""
    shell = f"timeout 40 wget -qO- 'http://{url}' 2>&1"
    return engine.gemel("exec", "-T", name, "sh", "-c", shell, check=False).stdout


def recorded(engine: EngineProcess, path: str, count: int) -> list[dict[str, Any]]:
    """The calls for a path, oldest first, once there are so many."""
    deadline = time.monotonic() + 30
    while True:
        lines = engine.gemel("traffic", "--all", "--path", path, "--format", "json").stdout
        calls = [json.loads(line) for line in lines.splitlines()]
        if len(calls) >= count:
            return calls
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)


def ends(call: dict[str, Any]) -> tuple[str, str]:
    """Names of who asked and who answered."""
    return call["source"].get("name", ""), call["target"].get("name", "")


def sure(call: dict[str, Any]) -> list[str]:
    """The faults that it has met for sure."""
    return [one["Fault"] for one in call.get("faults", []) if one["Sure"]]


def one_trace(engine: EngineProcess, call: dict[str, Any]) -> list[dict[str, Any]]:
    """The spans of the trace that a call is in, once there are two; no other trace has them."""
    deadline = time.monotonic() + 60
    while True:
        listed = engine.gemel("traces", "--all", "--format", "json").stdout.splitlines()
        whole = [engine.gemel("trace", json.loads(one)["Id"], "--format", "json") for one in listed]
        traces = [json.loads(one.stdout)["Spans"] for one in whole if one.stdout]
        mine = [one for one in traces if any(span["CallId"] == call["id"] for span in one)]
        if mine and len(mine[0]) > 1:
            seen = {span["CallId"] for span in mine[0]}
            assert not [one for one in traces if one is not mine[0] and one[0]["CallId"] in seen]
            return mine[0]
        assert time.monotonic() < deadline, traces
        time.sleep(0.3)


def test_a_call_by_the_proxy_is_one_call(engine: EngineProcess) -> None:
    """From a container to a micro VM and back, to one instance and to a service's address: told
    once, from the caller to who answered, with the caller's times and the fault, in one trace."""
    engine.call("POST", "/networks/create", {"Name": "faulty"})
    for number in ("1", "2"):
        run(engine, f"web-{number}", "sh", "-c", WEB, replica=("web", number))
    run(engine, "near", "sh", "-c", PASS)
    run(engine, "far", "sh", "-c", PASS, runtime="microvm")
    try:
        at = {name: address(engine, name) for name in ("web", "near", "far")}
        deadline = time.monotonic() + 60
        while any(
            asked(engine, source, f"{at[target]}/cgi-bin/pass?{at['web']}") != "hi\n"
            for source, target in (("near", "far"), ("far", "near"))
        ):
            assert time.monotonic() < deadline, "no answer"
        engine.ok("POST", "/gemel/traffic")
        count = 0
        for source, target in (("near", "far"), ("far", "near")):
            engine.gemel("fault", "add", source, target, "--latency", "300ms")
            engine.gemel("fault", "add", target, "web", "--http-delay", "200ms", "--port", "80")
            # the kernel lets an edge go that an engine without processor time does not hold
            for attempt in range(4):
                path = f"/cgi-bin/pass?{at['web']}&{source}{attempt}"
                assert asked(engine, source, f"{at[target]}{path}") == "hi\n"
                count += 2
                (call,) = recorded(engine, path, 1)
                assert ends(call) == (source, target) and call["status"] == 200
                if call["duration"] >= 0.45:
                    break
            assert call["duration"] >= 0.45
            assert sure(call) == ["latency 300ms"]
            spans = one_trace(engine, call)
            assert [(span["Peer"], span["Service"]) for span in spans] == [
                (source, target), (target, "web"),
            ]  # fmt: skip
            (beyond,) = [one for one in recorded(engine, "/", 2) if one["id"] == spans[1]["CallId"]]
            assert ends(beyond)[0] == target and ends(beyond)[1] in ("web-1", "web-2")
            assert sure(beyond) == ["body 0.2s late, port 80"]
            assert beyond["duration"] >= 0.15
            engine.gemel("fault", "clear")
        # what the proxy answers itself nobody behind the address has answered
        engine.gemel("fault", "add", "near", "web", "--http-status", "503")
        for attempt in range(4):
            said = asked(engine, "near", f"{at['web']}/refused{attempt}")
            (call,) = recorded(engine, f"/refused{attempt}", 1)
            count += 1
            if "503" in said:
                break
        assert call["status"] == 503 and sure(call) == ["HTTP 503"]
        assert call["target"]["service"] == "web" and "instance" not in call["target"]
        everything = recorded(engine, "/", count)
        assert len(everything) == count and "host" not in {ends(one)[0] for one in everything}
        edges = engine.gemel("metrics").stdout
        assert 'source="near",target="far",protocol="http",code="200"' in edges
        assert 'source="host"' not in edges
    finally:
        engine.call("DELETE", "/gemel/traffic")
        engine.call("DELETE", "/gemel/faults")
        for name in ("web-1", "web-2", "near", "far"):
            engine.call("DELETE", f"/containers/{name}?force=1")


def test_faults_that_are_none(engine: EngineProcess) -> None:
    for body, words in (
        ({"Latency": 100}, "latency"),
        ({"Status": 99}, "no status"),
        ({"Status": 503, "Share": 0}, "share"),
        ({"Latency": 1, "Share": 0.5}, "share"),
        ({"Latency": 1, "Port": 70000}, "no port"),
        ({}, "does nothing"),
    ):
        status, answer = engine.call("POST", "/gemel/faults", {"From": "a", "To": "b", **body})
        assert status == 400 and words in answer["message"], answer


SAMPLE = re.compile(
    r'[a-z_][a-z0-9_]*(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? -?[0-9.e+-]+|# (HELP|TYPE) [a-z_]+ .+'
)


def test_metrics(engine: EngineProcess) -> None:
    engine.ok("POST", "/gemel/traffic")
    engine.call("POST", "/networks/create", {"Name": "faulty"})
    run(engine, "web", "sh", "-c", WEB)
    run(engine, "asker", "sleep", "1000")
    until_it_answers(engine)
    deadline = time.monotonic() + 60
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
