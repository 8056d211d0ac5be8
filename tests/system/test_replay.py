"""A service's calls kept as HAR, and asked again after it has changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine import EngineProcess
from tests.system.test_traffic import python, until

pytestmark = pytest.mark.root

SERVER = r"""
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        got = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"size": len(got), "price": PRICE, "big": "x" * 20000}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = HTTPServer(("", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"""
CLIENT = r"""
import http.client, time
for n in range(3):
    c = http.client.HTTPConnection("shopserver", 8080)
    c.request("POST", "/pay/%d" % n, b"a" * 9000, {"X-Kind": "test"})
    c.getresponse().read()
print("done", flush=True)
"""


def test_calls_are_kept_and_asked_again(engine: EngineProcess, tmp_path: Path) -> None:
    engine.ok("POST", "/networks/create", {"Name": "calls"})
    server = python(engine, "shopserver", tmp_path, "PRICE = 3\n" + SERVER)
    until(engine, server, "ready")
    file = tmp_path / "calls.har"
    recording = subprocess.Popen(
        [sys.executable, "-m", "gemel", "record", "shopserver", "-o", str(file)],
        env=engine.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert recording.stderr is not None
        os.set_blocking(recording.stderr.fileno(), True)
        assert "recording" in recording.stderr.readline()
        client = python(engine, "shopclient", tmp_path, CLIENT)
        until(engine, client, "done")
        deadline = time.monotonic() + 90
        while len(engine.gemel("traffic", "--to", "shopserver").stdout.splitlines()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        recording.send_signal(signal.SIGINT)
        told, errors = recording.communicate(timeout=90)
    assert recording.returncode == 0, errors
    assert "3 calls to shopserver, 0 that it made" in told
    entries = json.loads(file.read_text())["log"]["entries"]
    assert [e["request"]["url"] for e in entries] == [
        f"http://shopserver:8080/pay/{n}" for n in range(3)
    ]
    # whole bodies, both ways
    assert len(entries[0]["request"]["postData"]["text"]) == 9000
    assert len(json.loads(entries[0]["response"]["content"]["text"])["big"]) == 20000
    same = engine.gemel("replay", str(file), "shopserver")
    assert "3 calls, 0 answered differently" in same.stdout, same.stdout
    engine.ok("DELETE", f"/containers/{server}?force=1")
    gone = engine.gemel("replay", str(file), "shopserver", check=False)
    assert gone.returncode != 0 and "Traceback" not in gone.stderr
    server = python(engine, "shopserver", tmp_path, "PRICE = 4\n" + SERVER)
    until(engine, server, "ready")
    changed = engine.gemel("replay", str(file), "shopserver", check=False)
    assert changed.returncode == 1
    assert changed.stdout.count("$.price: 3 → 4") == 3
    ignored = engine.gemel("replay", str(file), "shopserver", "--ignore", "price")
    assert ignored.returncode == 0
    other = engine.gemel("replay", str(file), "shopclient", check=False)
    assert "no call to shopclient is in the file" in other.stderr
    assert "it holds calls to shopserver" in other.stderr


COMPOSE = """
name: alone
services:
  orders:
    image: test/busybox:latest
    command: sleep 1000
    depends_on: {payments: {condition: service_healthy}}
  payments: {image: no/such/image, healthcheck: {test: [CMD, "true"]}}
"""
ASK = (
    "{ printf 'GET %s HTTP/1.1\\r\\nHost: payments\\r\\n\\r\\n'; sleep 4; } | nc -w 9 payments 8080"
)


def entry(path: str, body: str) -> dict[str, object]:
    return {
        "request": {"method": "GET", "url": f"http://payments:8080{path}", "headers": []},
        "response": {
            "status": 200,
            "headers": [{"name": "X-Kind", "value": "kept"}],
            "content": {"text": body},
        },
        "_gemel": {"source": "orders", "target": "payments", "protocol": "http"},
    }


def ask(engine: EngineProcess, folder: Path, path: str) -> str:
    shell = ASK.replace("%s", path)
    return engine.gemel("exec", "-T", "orders", "sh", "-c", shell, cwd=folder, check=False).stdout


def test_a_service_alone_with_recorded_dependencies(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    file = tmp_path / "calls.har"
    kept = {"log": {"version": "1.2", "entries": [entry("/price", "3"), entry("/price", "4")]}}
    file.write_text(json.dumps(kept))
    for options, words in (
        (("up", "-d", "--replay-dependencies", str(file)), "needs the services"),
        (("up", "-d", "payments", "--replay-dependencies", str(file)), "no call that payments"),
        (("up", "-d", "orders", "--replay-dependencies", "no.har"), "cannot read"),
    ):
        refused = engine.gemel(*options, cwd=tmp_path, check=False)
        assert refused.returncode != 0 and words in refused.stderr, refused.stderr
    try:
        up = engine.gemel("up", "-d", "orders", "--replay-dependencies", str(file), cwd=tmp_path)
        assert "payments (2 calls)" in up.stderr
        first, second, third = (ask(engine, tmp_path, "/price") for _ in range(3))
        assert first.rstrip().endswith("3") and "X-Kind: kept" in first, first
        assert second.rstrip().endswith("4") and third.rstrip().endswith("4")
        missing = ask(engine, tmp_path, "/other")
        assert "501" in missing and "GET /price" in missing
        assert [s["Name"] for s in engine.ok("GET", "/gemel/replays")["Services"]] == ["payments"]
    finally:
        engine.gemel("down", "-t", "0", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while engine.ok("GET", "/gemel/replays")["Services"]:
        assert time.monotonic() < deadline, "it goes on without its network"
        time.sleep(0.1)
