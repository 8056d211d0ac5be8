"""What services say to each other is seen from outside, and is what they themselves say it is."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root

SERVER = r"""
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        path = getattr(self, "path", "") or ""
        sys.stdout.write(json.dumps(["log", path, int(code)]) + "\n")  # at once: threads

    def log_error(self, *args):
        pass

    def read(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self):
        self.read()
        status = int(self.path.partition("status=")[2][:3] or 200)
        self.send_response(status)
        body = b"x" * 100
        if "close" in self.path:
            self.close_connection = True
            self.end_headers()
            self.wfile.write(body)
        elif "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"32\r\n" + body[:50] + b"\r\n32\r\n" + body[:50] + b"\r\n0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", "sid=hidden-cookie; Path=/")
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(body)

    do_GET = do_POST = do_HEAD = do_PUT = answer

ThreadingHTTPServer.request_queue_size = 128
server = ThreadingHTTPServer(("", 80), Handler)
print("ready", flush=True)
server.serve_forever()
"""

CLIENT = r"""
import http.client, socket, time

def connect():
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("server", 80), timeout=20)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)

def raw(data):
    with connect() as one:
        one.sendall(data)
        while one.recv(65536):
            pass

connect().close()
kept = http.client.HTTPConnection("server", 80, timeout=20)
for n in range(300):
    path = f"/keep/{n}"
    method, body, headers = "GET", None, {"Authorization": "Bearer hidden-token"}
    kind = n % 6
    if kind == 1:
        method = "HEAD"
    elif kind == 2:
        method, body = "POST", b'{"password": "hidden-password", "n": 1}' * 100
    elif kind == 3:
        method, body, path = "PUT", iter([b"a" * 1000, b"b" * 70000]), path + "?chunked"
    elif kind == 4:
        path += f"?status={(404, 503, 204, 304)[n // 6 % 4]}"
    kept.request(method, path, body, headers, encode_chunked=kind == 3)
    kept.getresponse().read()
for n in range(20):
    many = b"".join(
        b"%s /pipe/%d-%d HTTP/1.1\r\nHost: s\r\n%s\r\n"
        % (b"HEAD" if m % 3 == 1 else b"GET", n, m, b"Connection: close\r\n" if m == 9 else b"")
        for m in range(10)
    )
    raw(many)
for n in range(5):
    raw(b"POST /expect/%d HTTP/1.1\r\nHost: s\r\nConnection: close\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\nhello" % n)
    raw(b"GET /close/%d HTTP/1.0\r\n\r\n" % n)
    raw(b"GET /broken HTZP/9.x\r\n\r\n")
    raw(b"GET /\x01\x02 HTTP/1.1\r\nConnection: close\r\n\r\n")
    raw(b"GET /long/%d HTTP/1.1\r\nX: %s\r\n\r\n" % (n, b"y" * 70000))
print("done", flush=True)
"""


def run(engine: EngineProcess, name: str, *argv: str, **host: Any) -> str:
    body = {"Image": IMAGE, "Cmd": list(argv), "HostConfig": {"NetworkMode": "calls", **host}}
    made = engine.ok("POST", f"/containers/create?name={name}", body)
    engine.ok("POST", f"/containers/{made['Id']}/start")
    return str(made["Id"])


def python(engine: EngineProcess, name: str, folder: Path, script: str) -> str:
    """A container that runs a script with this machine's own Python."""
    (folder / f"{name}.py").write_text(script)
    home = sys.base_prefix
    binds = [f"{path}:{path}:ro" for path in ("/lib", "/lib64", "/usr", home)]
    binds += [f"{folder}:/scripts:ro"]
    program = f"{home}/bin/python3"
    return run(engine, name, program, "-u", f"/scripts/{name}.py", Binds=list(dict.fromkeys(binds)))


def output(engine: EngineProcess, name: str) -> list[str]:
    return engine.gemel("logs", "--no-log-prefix", name).stdout.splitlines()


def until(engine: EngineProcess, name: str, line: str, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while line not in output(engine, name):
        assert time.monotonic() < deadline, f"{name} never said {line}: {output(engine, name)}"
        time.sleep(0.2)


def recorded(engine: EngineProcess, *args: str) -> list[dict[str, Any]]:
    done = engine.gemel("traffic", "--format", "json", *args)
    return [json.loads(line) for line in done.stdout.splitlines()]


def calls(entries: list[dict[str, Any]]) -> collections.Counter[tuple[str, int]]:
    return collections.Counter((entry["path"], entry["status"]) for entry in entries)


def test_every_call_is_seen_as_the_server_saw_it(engine: EngineProcess, tmp_path: Path) -> None:
    engine.ok("POST", "/networks/create", {"Name": "calls"})
    done = engine.gemel("traffic")
    assert "recording begins now" in done.stderr
    server = python(engine, "server", tmp_path, SERVER)
    until(engine, server, "ready")
    ask = "printf 'GET /vm/%s HTTP/1.0\\r\\n\\r\\n' $n; sleep 1"
    loop = f"n=0; while [ $n -lt 5 ]; do n=$((n+1)); {{ {ask}; }} | nc -w 20 server 80; done"
    vm = run(engine, "vm", "sh", "-c", f"{loop}; echo; echo done", Runtime="microvm")
    client = python(engine, "client", tmp_path, CLIENT)
    until(engine, client, "done")
    until(engine, vm, "done")
    deadline = time.monotonic() + 90
    while True:
        logged = [json.loads(row) for row in output(engine, server) if row.startswith("[")]
        # what is no HTTP/1 at all gets an answer without a status
        expected = collections.Counter((path, status) for _, path, status in logged if path)
        seen = recorded(engine, "--to", "server")
        broken = [e for e in seen if e["path"] == "/broken"]
        got = calls([e for e in seen if e["protocol"] == "http" and e not in broken])
        all_logged = len(logged) == 300 + 200 + 25 + 5
        if (all_logged and got == expected and len(broken) == 5) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert all_logged
    assert len(broken) == 5
    assert all(e["error"] and e["failed"] for e in broken)
    assert got - expected == expected - got == collections.Counter()
    _check_contents(engine, seen)
    for name in (client, vm, server):
        engine.ok("DELETE", f"/containers/{name}?force=1")
    engine.ok("DELETE", "/networks/calls")


def _check_contents(engine: EngineProcess, seen: list[dict[str, Any]]) -> None:
    assert "hidden-" not in json.dumps(seen)
    assert {e["source"]["name"] for e in seen} == {"client", "vm"}
    by_path = {e["path"]: e for e in seen}
    chunked = by_path["/keep/3?chunked"]
    assert (chunked["request"]["size"], chunked["response"]["size"]) == (71000, 100)
    assert by_path["/keep/0"]["response"]["body"] == "x" * 100
    assert {e["connection"] for e in seen if e["path"].startswith("/keep/")} == {
        chunked["connection"]
    }
    failed = recorded(engine, "--status", "5xx")
    assert failed
    assert {e["status"] for e in failed} == {503}
    assert {e["source"]["name"] for e in recorded(engine, "--from", "vm")} == {"vm"}
    shown = engine.gemel("traffic", "show", chunked["id"]).stdout
    assert "> PUT /keep/3?chunked" in shown
    assert "Authorization: Bearer ***" in shown
    table = engine.gemel("traffic", "--from", "vm").stdout
    assert "vm → server" in table
    assert "GET /vm/5" in table


def test_what_lives_for_a_moment_is_named(engine: EngineProcess) -> None:
    engine.ok("POST", "/networks/create", {"Name": "calls"})
    engine.ok("POST", "/gemel/traffic")
    server = run(engine, "server", "sh", "-c", "echo hi > /tmp/hi; httpd -f -p 80 -h /tmp")
    ask = "until wget -q -O- http://server/hi; do sleep 0.1; done"
    run(engine, "first", "sh", "-c", ask)
    until(engine, "first", "hi")
    names = {f"moment{n}" for n in range(8)}
    for name in sorted(names):
        one = run(engine, name, "wget", "-q", "-O-", "http://server/hi", AutoRemove=True)
        engine.call("POST", f"/containers/{one}/wait")  # or it is gone already

    def seen() -> set[str]:
        found = [e for e in recorded(engine, "--to", "server") if e["path"] == "/hi"]
        assert all(e["source"].get("name") for e in found), found
        return {e["source"]["name"] for e in found if e["status"] == 200}

    engine.settle(lambda: names <= seen(), "not all calls are recorded")
    for name in ("first", server):
        engine.ok("DELETE", f"/containers/{name}?force=1")
    engine.ok("DELETE", "/networks/calls")


def test_services_do_not_notice_when_the_capture_dies(engine: EngineProcess) -> None:
    engine.ok("POST", "/gemel/traffic")
    pid = int((engine.paths.run / "traffic" / "pid").read_text().split()[0])

    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while True:  # it comes again by itself
        try:
            again = int((engine.paths.run / "traffic" / "pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            again = pid
        if again != pid:
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    engine.ok("POST", "/gemel/traffic")
    engine.ok("DELETE", "/gemel/traffic")
    with contextlib.suppress(
        FileNotFoundError, ProcessLookupError
    ):  # or a zombie, whom init has not buried yet
        assert not Path(f"/proc/{again}/cmdline").read_bytes()
    assert engine.call("GET", "/gemel/traffic/1")[0] == 404


def test_why(engine: EngineProcess) -> None:
    engine.ok("POST", "/gemel/traffic")
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", "echo last words; exit 139"]}
    engine.ok("POST", "/containers/create?name=crash", body)
    engine.ok("POST", "/containers/crash/start")
    engine.ok("POST", "/containers/crash/wait")
    told = engine.gemel("why", "crash").stdout
    assert "exited: ended with status 139" in told
    assert "SIGSEGV" in told
    assert "last words" in told
    assert "end with status 139" in told
    engine.ok("DELETE", "/containers/crash?force=1")
    assert engine.call("GET", "/gemel/containers/crash/why")[0] == 404
    engine.ok("DELETE", "/gemel/traffic")
