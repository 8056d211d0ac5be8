"""The engine with real containers, through its API: life, death, restarts, adoption."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root


def create(engine: EngineProcess, name: str, *argv: str, host: Any = None, **config: Any) -> str:
    body = {"Image": IMAGE, "Cmd": list(argv), "HostConfig": host or {}, **config}
    made = engine.ok("POST", f"/containers/create?name={name}", body)
    return str(made["Id"])


def run(engine: EngineProcess, name: str, *argv: str, host: Any = None, **config: Any) -> str:
    id = create(engine, name, *argv, host=host, **config)
    engine.ok("POST", f"/containers/{id}/start")
    return id


def remove(engine: EngineProcess, *names: str) -> None:
    for name in names:
        engine.call("DELETE", f"/containers/{name}?force=1&v=1")


def logs(engine: EngineProcess, name: str, query: str = "stdout=1&stderr=1") -> str:
    raw = engine.ok("GET", f"/containers/{name}/logs?{query}") or b""
    out, at = b"", 0
    data = raw if isinstance(raw, bytes) else str(raw).encode()
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        out += data[at + 8 : at + 8 + size]
        at += 8 + size
    return out.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.makefile("rb").read().decode()


WEB = "mkdir -p /www; echo hi > /www/index.html; exec httpd -f -p 80 -h /www"


# Debian's static busybox has a wget that crashes now and then; its nc does not
GET = "{{ printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.2; }} | nc -w 30 {} 80 | grep hi"
ASK = f"while :; do {GET.format('web')} || echo lost; sleep 0.1; done"


def answering(port: int) -> str:
    """The answer of a server that may still be coming up."""
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError):
            answer = fetch(port)
            if answer:
                return answer
        assert time.monotonic() < deadline, f"nothing answers on port {port}"
        time.sleep(0.05)


def test_exit_code_and_state(engine: EngineProcess) -> None:
    id = run(engine, "ends", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert engine.ok("POST", f"/containers/{id}/wait")["StatusCode"] == 3
    state = engine.ok("GET", f"/containers/{id}/json")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 3, 0)
    assert sorted(logs(engine, id).split()) == ["err", "out"]
    remove(engine, id)


def test_a_name_that_is_taken(engine: EngineProcess) -> None:
    create(engine, "twice", "true")
    status, answer = engine.call(
        "POST", "/containers/create?name=twice", {"Image": IMAGE, "Cmd": ["true"]}
    )
    assert status == 409
    assert "already in use by container" in answer["message"]
    remove(engine, "twice")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Image": "nope"}, 404, "No such image: nope:latest"),
        ({"Image": IMAGE}, 400, "no command specified"),
        ({"Image": IMAGE, "Cmd": ["x"], "HostConfig": {"Runtime": "odd"}}, 400, "runtime"),
        ({"Image": IMAGE, "Cmd": ["x"], "HostConfig": {"NetworkMode": "nonet"}}, 404, "nonet"),
        ({"Image": IMAGE, "Cmd": ["x"], "HostConfig": {"Memory": 5}}, 400, "6MB"),
        ({"Image": IMAGE, "Cmd": ["x"], "HostConfig": {"Binds": ["/a:rel"]}}, 400, "absolute"),
        (
            {"Image": IMAGE, "Cmd": ["x"], "HostConfig": {"DeviceRequests": [{"Count": -1}]}},
            501,
            "GPUs",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_whole(
    engine: EngineProcess, body: Any, status: int, words: str
) -> None:

    def there() -> Any:
        ids = {one["Id"] for one in engine.ok("GET", "/containers/json?all=1")}
        return ids, engine.ok("GET", "/volumes")

    before = there()
    got, answer = engine.call("POST", "/containers/create", body)
    assert got == status
    assert words in answer["message"]
    assert there() == before


def test_a_program_that_is_not_in_the_image(engine: EngineProcess) -> None:
    id = create(engine, "absent", "no-such-program")
    status, answer = engine.call("POST", f"/containers/{id}/start")
    assert status in (400, 500)
    assert "executable file not found" in answer["message"]
    state = engine.ok("GET", f"/containers/{id}/json")["State"]
    assert state["ExitCode"] == 127
    assert engine.ok("GET", "/networks/bridge")["Containers"].get(id) is None
    remove(engine, id)


def test_a_port_that_is_taken(engine: EngineProcess) -> None:
    port = free_port()
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        id = create(engine, "taken", "sh", "-c", WEB, host={"PortBindings": bindings})
        status, answer = engine.call("POST", f"/containers/{id}/start")
        assert status in (409, 500)
        assert "port is already allocated" in answer["message"]
    # the same container starts once the port is free
    engine.ok("POST", f"/containers/{id}/start")
    assert "hi" in answering(port)
    remove(engine, id)


def test_names_and_aliases_within_a_network(engine: EngineProcess) -> None:
    engine.ok("POST", "/networks/create", {"Name": "back"})
    engine.ok("POST", "/networks/create", {"Name": "other"})
    server = run(
        engine,
        "server",
        "sh",
        "-c",
        WEB,
        host={"NetworkMode": "back"},
        NetworkingConfig={"EndpointsConfig": {"back": {"Aliases": ["web"]}}},
    )
    wait = "for n in $(seq 300); do nc -w 1 web 80 </dev/null && break; sleep 0.2; done;"
    fetched = f"{GET.format('web')} && {GET.format('server')}"
    near = run(engine, "near", "sh", "-c", wait + fetched, host={"NetworkMode": "back"})
    far = run(engine, "far", "sh", "-c", GET.format("web"), host={"NetworkMode": "other"})
    assert engine.ok("POST", f"/containers/{near}/wait")["StatusCode"] == 0
    assert logs(engine, near) == "hi\nhi\n"
    assert engine.ok("POST", f"/containers/{far}/wait")["StatusCode"] != 0
    status, answer = engine.call("DELETE", "/networks/back")
    assert (status, "active endpoints" in answer["message"]) == (409, True)
    # connected while it runs, the name is found
    engine.ok("POST", "/networks/other/connect", {"Container": server})
    late = run(engine, "late", "sh", "-c", GET.format("server"), host={"NetworkMode": "other"})
    assert engine.ok("POST", f"/containers/{late}/wait")["StatusCode"] == 0, logs(engine, late)
    remove(engine, server, near, far, late)
    engine.ok("DELETE", "/networks/back")
    engine.ok("DELETE", "/networks/other")


def test_a_new_volume_gets_what_the_image_has_there(engine: EngineProcess) -> None:
    id = run(
        engine, "fills", "sh", "-c", "ls /data; touch /data/new", host={"Binds": ["vol1:/etc"]}
    )
    engine.ok("POST", f"/containers/{id}/wait")
    again = run(engine, "again", "cat", "/x/passwd", host={"Binds": ["vol1:/x:ro"]})
    assert engine.ok("POST", f"/containers/{again}/wait")["StatusCode"] == 0
    assert "app:x:1000" in logs(engine, again)
    assert engine.call("DELETE", "/volumes/vol1")[0] == 409
    remove(engine, id, again)
    engine.ok("DELETE", "/volumes/vol1")


def test_restart_policies(engine: EngineProcess) -> None:
    policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    id = run(engine, "fails", "sh", "-c", "echo once; exit 1", host=policy)
    deadline = time.monotonic() + 60
    while logs(engine, id).count("once") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    engine.wait_for("exited", name=id)
    assert engine.ok("GET", f"/containers/{id}/json")["RestartCount"] == 2
    always = run(
        engine, "comes-back", "sh", "-c", "echo up; sleep 1000",
        host={"RestartPolicy": {"Name": "always"}},
    )  # fmt: skip
    pid = engine.ok("GET", f"/containers/{always}/json")["State"]["Pid"]
    subprocess.run(["kill", "-9", str(pid)], check=True)
    while engine.ok("GET", f"/containers/{always}/json")["State"]["Pid"] in (0, pid):
        assert time.monotonic() < deadline + 60
        time.sleep(0.05)
    # stopped by its user, it stays stopped
    engine.ok("POST", f"/containers/{always}/stop?t=1")
    time.sleep(1)
    assert engine.ok("GET", f"/containers/{always}/json")["State"]["Status"] == "exited"
    remove(engine, id, always)


def test_health_checks(engine: EngineProcess) -> None:
    check = {
        "Test": ["CMD-SHELL", "test -e /tmp/ready || { echo not yet; exit 1; }"],
        "Interval": 100_000_000,
        "Timeout": 10_000_000_000,
        "Retries": 2,
    }
    id = run(engine, "checked", "sleep", "1000", Healthcheck=check)
    engine.wait_for("unhealthy", name=id)
    log = engine.ok("GET", f"/containers/{id}/json")["State"]["Health"]["Log"]
    assert (log[-1]["ExitCode"], log[-1]["Output"]) == (1, "not yet\n")
    exec = engine.ok("POST", f"/containers/{id}/exec", {"Cmd": ["touch", "/tmp/ready"]})["Id"]
    engine.ok("POST", f"/exec/{exec}/start", {"Detach": True})
    engine.wait_for("healthy", name=id)
    remove(engine, id)


def test_events_and_auto_remove(engine: EngineProcess) -> None:
    since = time.time()
    id = run(engine, "goes", "true", host={"AutoRemove": True})
    deadline = time.monotonic() + 60
    while engine.call("GET", f"/containers/{id}/json")[0] != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    raw = engine.ok("GET", f"/events?since={since:.9f}&until={time.time():.9f}")
    lines = raw.decode().splitlines() if isinstance(raw, bytes) else [json.dumps(raw)]
    events = [json.loads(line) for line in lines]
    mine = [e["Action"] for e in events if e["Actor"]["ID"] == id]
    assert mine == ["create", "start", "die", "destroy"]


def test_the_engine_dies_and_returns(fresh_engine: EngineProcess, tmp_path: Path) -> None:
    """kill -9: services answer, names resolve, output is kept, and all is taken up again."""
    engine = fresh_engine
    port = free_port()
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    web = run(engine, "web", "sh", "-c", WEB, host={"PortBindings": bindings})
    count = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"
    counter = run(engine, "counter", "sh", "-c", count)
    asker = run(engine, "asker", "sh", "-c", ASK)
    brief = run(engine, "brief", "sh", "-c", "sleep 1; exit 5")
    comes = run(
        engine, "comes", "sh", "-c", "sleep 1; exit 1", host={"RestartPolicy": {"Name": "always"}}
    )
    assert "hi" in answering(port)
    seen = len(logs(engine, counter).split())
    written = engine.paths.instance(counter) / "log"
    engine.kill_hard()
    assert "hi" in fetch(port)
    enough = seen + 20
    engine.settle(
        lambda: len(written.read_bytes().splitlines()) > enough, "its output is not kept meanwhile"
    )
    assert "hi" in fetch(port)
    engine.start()
    state = engine.ok("GET", f"/containers/{brief}/json")["State"]
    if state["Status"] != "exited":
        engine.wait_for("exited", name=brief)
    assert engine.ok("GET", f"/containers/{brief}/json")["State"]["ExitCode"] == 5
    engine.wait_for("running", name=comes)
    numbers = [int(n) for n in logs(engine, counter).split()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > enough
    assert "lost" not in logs(engine, asker)
    assert "hi" in fetch(port)
    engine.ok("POST", f"/containers/{web}/stop?t=2")
    with pytest.raises(OSError):
        fetch(port)


def test_fifty_in_a_row_leave_nothing(engine: EngineProcess) -> None:
    for _ in range(50):
        id = create(engine, "row", "true", host={"AutoRemove": True})
        engine.ok("POST", f"/containers/{id}/start")
        deadline = time.monotonic() + 30
        while engine.call("GET", f"/containers/{id}/json")[0] != 404:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not list((engine.paths.root / "instances").glob("*"))
    assert not list((engine.paths.run / "instances").glob("*"))


def test_many_attached_runs_all_come_back(engine: EngineProcess) -> None:
    """A program that ends while its standard input is being connected once hung its client."""
    for n in range(25):
        done = engine.gemel("run", "--rm", "-i", IMAGE, "echo", str(n), input="", timeout=120)
        assert done.stdout == f"{n}\n"
