"""What recording costs the services, whether it misses a call, and how fast logs are stored."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from bench.measure import Aim, Case
from bench.peers import IMAGE, Field, Gemel

#: Requests a second, and seconds of one measurement; of the mixed traffic.
_RATE, _LASTS = 5000, 4.0
_MIXED, _MIXED_LASTS = 2000, 6.0
#: Bytes that are written to a log, in lines of 100.
_LOG = {"container": 200 << 20, "microvm": 20 << 20}
_DEADLINE = 120.0

SERVER = r"""
import asyncio, collections, json, sys
import httptools

seen = collections.Counter()

class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)
    def on_url(self, url):
        self.url = url
    def on_header(self, name, value):
        if name.lower() == b"expect":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    def on_message_complete(self):
        status = 404 if b"missing" in self.url else 200
        if b"count" in self.url:
            seen[self.url.decode() + " " + str(status)] += 1
        if b"report" in self.url:
            body = json.dumps(seen).encode()
        else:
            body = b"x" * 100
        kind = b"Content-Length: %d" % len(body)
        if b"chunked" in self.url:
            kind, body = b"Transfer-Encoding: chunked", b"64\r\n" + body + b"\r\n0\r\n\r\n"
        self.transport.write(b"HTTP/1.1 %d OK\r\n%s\r\n\r\n%s" % (status, kind, body))
    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "", 80, backlog=512)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

#: Sends so many requests a second over connections that stay open; each waits for its answer.
CLIENT = r"""
import asyncio, json, sys, time
rate, lasts, mixed = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "mixed"
count = 0

def request(n):
    if not mixed:
        return b"GET /item/%d HTTP/1.1\r\nHost: s\r\n\r\n" % (n % 100), 1
    kind = n % 6
    if kind == 0:
        return b"".join(b"GET /count/%d-%d HTTP/1.1\r\nHost: s\r\n\r\n" % (n, m)
                        for m in range(4)), 4
    if kind == 1:
        return (b"POST /count/%d?chunked HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n0\r\n\r\n" % n), 1
    if kind == 2:
        return (b"PUT /count/%d HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\n"
                b"Content-Length: 5\r\n\r\nhello" % n), 1
    path = b"missing" if kind == 3 else b"x"
    return b"GET /count/%d-%s HTTP/1.1\r\nHost: s\r\n\r\n" % (n, path), 1

async def connect():
    for _ in range(200):
        try:
            return await asyncio.open_connection("server", 80)
        except OSError:
            await asyncio.sleep(0.05)
    raise SystemExit("no server")

async def main():
    global count
    times, free = [], asyncio.Queue()
    for _ in range(32):
        free.put_nowait(await connect())
    async def one(reader, writer, n):
        global count
        begin = time.perf_counter()
        data, answers = request(n)
        writer.write(data)
        while answers:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100"):
                continue
            await reader.readexactly(100 if b"Length" in head else 100 + 4 + 2 + 5)
            answers -= 1
            count += 1
        times.append(time.perf_counter() - begin)
        free.put_nowait((reader, writer))
    if mixed:
        for n in range(20):
            reader, writer = await connect()
            writer.write(b"GET /broken HTZP/9\r\n\r\n")
            await reader.read()
            writer.close()
    begin, n, tasks = time.perf_counter(), 0, set()
    while (now := time.perf_counter() - begin) < lasts:
        while count + len(tasks) < now * rate and (now := time.perf_counter() - begin) < lasts:
            pair = await free.get()
            task = asyncio.create_task(one(*pair, n))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            n += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begin
    times.sort()
    print(json.dumps({"rate": count / took, "p50": times[len(times) // 2],
                      "p99": times[len(times) * 99 // 100], "count": count}), flush=True)

asyncio.run(main())
"""


class _Pair:
    """A server, and clients of it one after the other, in containers with this Python."""

    def __init__(self, gemel: Gemel) -> None:
        self._gemel = gemel
        self._folder = gemel.folder / "scripts"
        self._folder.mkdir(exist_ok=True)
        (self._folder / "server.py").write_text(SERVER)
        (self._folder / "client.py").write_text(CLIENT)
        gemel.api.call("POST", "/networks/create", {"Name": "capture"})
        self._server = self._run("server", "/scripts/server.py")
        self._output(self._server, "ready")

    def _run(self, name: str, *argv: str) -> str:
        home, packages = sys.base_prefix, sysconfig.get_path("purelib")
        shared = dict.fromkeys(["/lib", "/lib64", "/usr", home, packages])
        host = {
            "NetworkMode": "capture",
            "Binds": [*(f"{p}:{p}:ro" for p in shared), f"{self._folder}:/scripts:ro"],
        }
        body = {
            "Image": IMAGE,
            "Cmd": [f"{home}/bin/python3", "-u", *argv],
            "Env": [f"PYTHONPATH={packages}"],
            "HostConfig": host,
        }
        api = self._gemel.api
        id = str(api.call("POST", f"/containers/create?name={name}", body)["Id"])
        api.call("POST", f"/containers/{id}/start")
        return id

    def _output(self, id: str, wanted: str) -> str:
        path = self._gemel.engine.paths.instance(id) / "log"
        deadline = time.monotonic() + _DEADLINE
        while wanted not in (text := path.read_text() if path.exists() else ""):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {wanted!r} in {text[-500:]!r}")
            time.sleep(0.05)
        return text

    def ask(self, rate: int, lasts: float, kind: str) -> dict[str, float]:
        """What a client has measured."""
        id = self._run("client", "/scripts/client.py", str(rate), str(lasts), kind)
        try:
            text = self._output(id, '"p99"')
            found: dict[str, float] = json.loads(text[text.rindex("{") : text.rindex("}") + 1])
            return found
        finally:
            self._gemel.api.call("DELETE", f"/containers/{id}?force=1")

    def served(self) -> collections.Counter[str]:
        """Paths with statuses that the server has counted."""
        import urllib.request

        told = self._gemel.api.call("GET", f"/containers/{self._server}/json")
        address = told["NetworkSettings"]["Networks"]["capture"]["IPAddress"]
        with urllib.request.urlopen(f"http://{address}/report", timeout=30) as answer:
            return collections.Counter(json.loads(answer.read()))

    def close(self) -> None:
        """Removes what was made."""
        self._gemel.api.call("DELETE", f"/containers/{self._server}?force=1")
        self._gemel.api.call("DELETE", "/networks/capture")


def _capture_pid(gemel: Gemel) -> int:
    return int((gemel.engine.paths.run / "traffic" / "pid").read_text().split()[0])


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cost(gemel: Gemel, pair: _Pair, rounds: int, seconds: float) -> list[Case]:
    """With and without recording, in turns."""
    rate = Case("capture", f"time for {_RATE} requests, asked within a second", unit="s")
    rate.aims = [Aim(1.05, beside="without", of="with recording")]
    late = Case("capture", "median latency of them", unit="s")
    cpu = Case("capture", f"processor time of the capture for {_RATE} requests", unit="s")
    cpu.aims = [Aim(0.5, of="gemel")]
    end = time.monotonic() + seconds
    for round in range(max(3, rounds)):
        if round >= 3 and time.monotonic() > end:
            break
        for name in ("without", "with recording") if round % 2 else ("with recording", "without"):
            gemel.api.call("POST" if name != "without" else "DELETE", "/gemel/traffic")
            before = _cpu(_capture_pid(gemel)) if name != "without" else 0.0
            found = pair.ask(_RATE, _LASTS, "plain")
            if name != "without":
                used = _cpu(_capture_pid(gemel)) - before
                cpu.series.setdefault("gemel", []).append(used / found["count"] * _RATE)
            rate.series.setdefault(name, []).append(_RATE / found["rate"])
            late.series.setdefault(name, []).append(found["p50"])
    return [rate, late, cpu]


def _correct(gemel: Gemel, pair: _Pair) -> Case:
    """The share of calls of mixed traffic that is not recorded as the server counted it."""
    gemel.api.call("DELETE", "/gemel/traffic")
    gemel.api.call("POST", "/gemel/traffic")
    found = pair.ask(_MIXED, _MIXED_LASTS, "mixed")
    served = pair.served()
    recorded: collections.Counter[str] = collections.Counter()
    deadline = time.monotonic() + 20
    while recorded != served and time.monotonic() < deadline:
        time.sleep(0.5)
        raw = gemel.api.call("GET", "/gemel/traffic?to=server")
        rows = raw.splitlines() if isinstance(raw, bytes) else []
        calls: list[dict[str, Any]] = [json.loads(row) for row in rows]
        recorded = collections.Counter(
            f"{one['path']} {one['status']}" for one in calls if "/count/" in one.get("path", "")
        )
    wrong = sum((recorded - served).values()) + sum((served - recorded).values())
    case = Case("capture", "mixed calls that are missed or wrong", unit="%", aims=[Aim(0.1)])
    case.series["gemel"] = [100 * wrong / max(1, served.total())]
    case.notes.append(f"{served.total()} calls at {found['rate']:.0f} a second; keep-alive, "
                      "pipelined, chunked, 100-continue, broken")  # fmt: skip
    return case


def _logs(gemel: Gemel, runtime: str) -> list[Case]:
    """Seconds for each 100 MB of output; every byte must be there.

    The lines lie in a file beforehand: busybox's `yes` writes each by itself, and would be
    measured instead.
    """
    size = _LOG[runtime]
    script = f"yes {'x' * 99} | head -c {size} > /tmp/lines; echo go; sleep 2; cat /tmp/lines; "
    script += "echo; echo all; sleep 1000"
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", script],
        "HostConfig": {
            "NetworkMode": "none",
            "Runtime": runtime,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "-1"}},
        },
    }
    id = str(gemel.api.call("POST", "/containers/create", body)["Id"])
    try:
        gemel.api.call("POST", f"/containers/{id}/start")
        path = gemel.engine.paths.instance(id) / "log"
        while not path.exists() or not path.stat().st_size:
            time.sleep(0.005)
        writer, first = _writer(id, path), path.stat().st_size
        while path.stat().st_size == first:
            time.sleep(0.002)
        before, begin = _cpu(writer), time.monotonic()
        while not _ends_with(path, b" all\n"):
            if time.monotonic() > begin + _DEADLINE:
                end = path.read_bytes()[-120:]
                raise TimeoutError(f"the log of {path.stat().st_size} bytes ends with {end!r}")
            time.sleep(0.02)
        took, used = time.monotonic() - begin, _cpu(writer) - before
        with path.open("rb") as file:
            kept = sum(len(line.split(b" ", 3)[3]) for line in file) - len(b"go\n\nall\n")
        if kept < size:
            raise RuntimeError(f"{size - kept} of {size} bytes of the log are missing")
    finally:
        gemel.api.call("DELETE", f"/containers/{id}?force=1")
    wall = Case("capture", f"100 MB of log of a {runtime}", aims=[Aim(1.0)])
    wall.series["gemel"] = [took * 1e8 / size]
    cpu = Case("capture", f"processor time of who writes 100 MB of log of a {runtime}")
    cpu.series["gemel"] = [used * 1e8 / size]
    return [wall, cpu]


def _ends_with(path: Path, end: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(end)))
        return file.read() == end


def _writer(id: str, log: Path) -> int:
    """The process that has a log open: conmon or the relay."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if any(os.readlink(fd) == str(log) for fd in (folder / "fd").iterdir()):
                    return int(folder.name)
    raise RuntimeError(f"nobody writes the log of {id[:12]}")


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """An engine of its own: its recording is turned on and off."""
    gemel = Gemel()
    try:
        gemel.import_busybox()
        with contextlib.closing(_Pair(gemel)) as pair:
            cases = _cost(gemel, pair, rounds, seconds)
            cases.append(_correct(gemel, pair))
        return [*cases, *_logs(gemel, "container"), *_logs(gemel, "microvm")]
    finally:
        gemel.stop()
