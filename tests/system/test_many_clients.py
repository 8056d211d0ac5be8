"""Many clients at once, slow ones and vanished ones: nobody waits for another, nothing grows."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

CLIENTS = 50
MEGABYTES = 48


def _memory(engine: EngineProcess) -> int:
    assert engine.process is not None
    rows = Path(f"/proc/{engine.process.pid}/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("VmRSS:"))) << 10


def _open_files(engine: EngineProcess) -> int:
    assert engine.process is not None
    return len(list(Path(f"/proc/{engine.process.pid}/fd").iterdir()))


def _size(folder: Path) -> int:
    """Bytes of all files of a log, which may get other names meanwhile."""
    size = 0
    for file in folder.glob("log*"):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _make(engine: EngineProcess, name: str, script: str) -> None:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"Init": True}}
    engine.ok("POST", f"/containers/create?name={name}", body)
    engine.ok("POST", f"/containers/{name}/start")


@pytest.fixture
def talker(engine: EngineProcess) -> Iterator[str]:
    """A container that says something now and then, and runs what it is asked to."""
    _make(engine, "talker", "while :; do echo said; sleep 0.1; done")
    log = "/containers/talker/logs?stdout=1"
    engine.settle(lambda: engine.answer("GET", log)[2], "it says nothing")
    yield "talker"
    engine.ok("DELETE", "/containers/talker?force=1")


def _lives(engine: EngineProcess, number: int) -> None:
    name = f"crowd{number}"
    _make(engine, name, f"echo out of {number}; exit {number % 7}")
    ended = engine.ok("POST", f"/containers/{name}/wait")
    assert ended["StatusCode"] == number % 7
    log = engine.answer("GET", f"/containers/{name}/logs?stdout=1")[2]
    assert log[8:] == f"out of {number}\n".encode()
    engine.ok("DELETE", f"/containers/{name}")
    assert engine.call("GET", f"/containers/{name}/json")[0] == 404


def _lists(engine: EngineProcess, number: int) -> None:
    for _ in range(10):
        names = [one["Names"][0] for one in engine.ok("GET", "/containers/json")]
        assert "/talker" in names and len(names) == len(set(names))


def _executes(engine: EngineProcess, number: int) -> None:
    body = {"Cmd": ["echo", f"by {number}"], "AttachStdout": True}
    id = engine.ok("POST", "/containers/talker/exec", body)["Id"]
    _, answer = engine.call("POST", f"/exec/{id}/start", {})
    assert answer[8:] == f"by {number}\n".encode()
    assert engine.ok("GET", f"/exec/{id}/json")["ExitCode"] == 0


def _reads(engine: EngineProcess, number: int) -> None:
    log = engine.answer("GET", "/containers/talker/logs?stdout=1&tail=3")[2]
    assert log and set(log.replace(b"\x01\0\0\0\0\0\0\x05", b"").split()) == {b"said"}


def _watches(engine: EngineProcess, number: int) -> None:
    # filters of events match beginnings of names
    text = json.dumps({"type": ["volume"], "volume": [f"watched{number}-"]})
    until = engine.ok("GET", "/info")["SystemTime"]
    engine.ok("POST", "/volumes/create", {"Name": f"watched{number}-"})
    engine.ok("DELETE", f"/volumes/watched{number}-")
    after = engine.ok("GET", "/info")["SystemTime"]
    query = f"since={until}&until={after}&filters={text}"
    lines = engine.answer("GET", f"/events?{query.replace(' ', '')}")[2].splitlines()
    assert [json.loads(line)["Action"] for line in lines] == ["create", "destroy"]


def test_fifty_clients_at_once_get_right_answers(engine: EngineProcess, talker: str) -> None:
    works: list[Callable[[EngineProcess, int], None]] = [
        _lives, _lists, _executes, _reads, _watches,
    ]  # fmt: skip
    begin = threading.Barrier(CLIENTS)

    def client(number: int) -> None:
        begin.wait(60)
        works[number % len(works)](engine, number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, number) for number in range(CLIENTS)]:
            done.result(240)


def _ask(engine: EngineProcess, request: str) -> socket.socket:
    """Sends a request, and reads nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect(str(engine.paths.socket))
    client.sendall(f"{request} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
    return client


def test_who_does_not_read_holds_nobody_up_and_costs_nothing(engine: EngineProcess) -> None:
    loud = f"read go; yes a line that is written again and again | head -c {MEGABYTES << 20}; "
    body = {
        "Image": IMAGE, "OpenStdin": True, "Cmd": ["sh", "-c", loud + "exec sleep 1000"],
        "HostConfig": {"Init": True},
    }  # fmt: skip
    engine.ok("POST", "/containers/create?name=loud", body)
    engine.ok("POST", "/containers/loud/start")
    files, memory = _open_files(engine), _memory(engine)
    asked = [
        "GET /containers/loud/logs?stdout=1&stderr=1&follow=1",
        "POST /containers/loud/attach?stream=1&stdout=1&stderr=1",
        "GET /events",
        "GET /containers/loud/stats?stream=1",
    ]
    with contextlib.ExitStack() as stack:
        for request in asked * 5:
            stack.enter_context(_ask(engine, request))
        engine.settle(lambda: _open_files(engine) >= files + 20, "not all were let in")
        with _ask(engine, "POST /containers/loud/attach?stream=1&stdin=1") as typed:
            typed.recv(4096)
            typed.sendall(b"go\n")
        log = Path(engine.ok("GET", "/containers/loud/json")["LogPath"])
        for _ in range(20):  # others are served meanwhile
            engine.ok("POST", "/volumes/create", {"Name": "meanwhile"})
            engine.ok("DELETE", "/volumes/meanwhile")
        engine.settle(
            lambda: _size(log.parent) > MEGABYTES << 20,
            "the container is held up by those who do not read",
            timeout=120,
        )
        assert engine.ok("GET", "/containers/loud/json")["State"]["Running"]
        assert _memory(engine) < memory + (MEGABYTES << 20) * 2 // 3
    engine.settle(lambda: _open_files(engine) <= files + 2, "vanished clients are still served")
    engine.ok("DELETE", "/containers/loud?force=1")
