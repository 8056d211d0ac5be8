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
        deadline = time.monotonic() + 30
        while len(engine.gemel("traffic", "--to", "shopserver").stdout.splitlines()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        recording.send_signal(signal.SIGINT)
        told, errors = recording.communicate(timeout=30)
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
