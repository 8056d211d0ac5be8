"""Requests that schemathesis makes from docs/openapi.yaml, sent to a real engine.

Half of the names in paths are those of things that exist. What would reach beyond the
engine's own folders is left out: see ``EXCLUDED`` and ``_tamed``.
"""

from __future__ import annotations

import argparse
import http.client
import io
import random
import socket
import tarfile
import time
from collections import Counter
from typing import Any, NamedTuple

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests import openapi
from tests.engine import IMAGE, EngineProcess, _Connection

#: Not asked: what ends the engine, downloads what may not be there, or runs for minutes.
EXCLUDED = {
    ("POST", "/gemel/shutdown"),
    ("POST", "/gemel/images/bootstrap"),
    ("POST", "/gemel/kernels/fetch"),
    ("POST", "/gemel/kernels/build"),
    ("POST", "/gemel/debug/toolbox"),
    ("POST", "/gemel/compare"),
    ("POST", "/gemel/dashboard"),
    ("POST", "/gemel/kernels/build"),
}
#: Statuses of the engine's own that are no fault: not supported, not reachable.
ALLOWED = (501, 503)
#: Seconds in which an answer must have begun, and in which the body of a stream is read.
HANG, READ = 60.0, 0.15
_STREAMS = (
    "/events",
    "/logs",
    "/attach",
    "/stats",
    "/wait",
    "/exec/",
    "/gemel/traffic",
    "/attach/ws",
)


@schemathesis.serializer("application/x-tar")
def _tar(ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


class Failure(NamedTuple):
    """A request whose answer is wrong."""

    request: str
    why: str


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in (("Dockerfile", f"FROM {IMAGE}\nENV A=1\n"), ("a/b", "text")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class Fuzzer:
    """Sends requests and collects what is wrong with the answers."""

    def __init__(self, engine: EngineProcess, number: int) -> None:
        self.engine = engine
        self.random = random.Random(number)
        self.schema = schemathesis.openapi.from_path(str(openapi.FILE))
        self.failures: list[Failure] = []
        self.statuses: Counter[int] = Counter()
        self.times: dict[str, float] = {}
        self._exec = ""
        self._number = number
        self.repair()

    # things that exist

    def repair(self) -> None:
        """Makes what has gone; removes what has become too much."""
        listed = self.engine.ok("GET", "/containers/json?all=1")
        names = {one["Names"][0].lstrip("/"): one for one in listed if one["Names"]}
        for one in listed[12:]:
            self.engine.call("DELETE", f"/containers/{one['Id']}?force=1&v=1")
        if "fuzz-runs" not in names:
            self._make("fuzz-runs")
            names["fuzz-runs"] = {"State": "created"}
        state = names["fuzz-runs"]["State"]
        if state == "paused":
            self.engine.call("POST", "/containers/fuzz-runs/unpause")
        elif state != "running":
            self.engine.call("POST", "/containers/fuzz-runs/start")
        if "fuzz-made" not in names:
            self._make("fuzz-made")
        self.engine.call("POST", "/networks/create", {"Name": "fuzz-net"})
        self.engine.ok("POST", "/volumes/create", {"Name": "fuzz-vol"})
        for network in self.engine.ok("GET", "/networks")[12:]:
            self.engine.call("DELETE", f"/networks/{network['Id']}")
        if self.engine.call("GET", f"/images/{IMAGE}/json")[0] != 200:
            self.engine.import_busybox()
        self._exec = self.engine.call(
            "POST", "/containers/fuzz-runs/exec", {"Cmd": ["echo", "a"], "AttachStdout": True}
        )[1].get("Id", "none")

    def _make(self, name: str) -> None:
        script = "while :; do echo line; sleep 0.5; done"
        body = {
            "Image": IMAGE, "Cmd": ["sh", "-c", script],
            "HostConfig": {"Init": True, "Binds": ["fuzz-vol:/data"]},
        }  # fmt: skip
        self.engine.ok("POST", f"/containers/create?name={name}", body)

    def _known(self, path: str) -> str:
        if path.startswith("/exec"):
            return self._exec
        if path.startswith("/networks"):
            return "fuzz-net"
        if path.startswith("/volumes"):
            return "fuzz-vol"
        if path.startswith(("/images", "/distribution")):
            return IMAGE
        return self.random.choice(["fuzz-runs", "fuzz-runs", "fuzz-made", "fuzz-new"])

    # one request

    def _tamed(self, case: Any) -> None:
        """Puts in names that exist; takes out what reaches the machine or takes for ever."""
        choose = self.random.random
        parameters, query = case.path_parameters, case.query
        if parameters and choose() < 0.6:
            for key in parameters:
                parameters[key] = self._known(case.operation.path)
        if isinstance(query, dict):
            query.pop("remote", None)
            if "t" in query and case.operation.path != "/build" and choose() < 0.9:
                query["t"] = self.random.choice([0, 1, 2])
            if "container" in query and choose() < 0.6:
                query["container"] = "fuzz-runs"
            if "name" in query and case.operation.path.endswith("create") and choose() < 0.6:
                query["name"] = "fuzz-new"
            if "path" in query and choose() < 0.6:
                query["path"] = self.random.choice(["/", "/etc", "/bin/sh", "/data/", "/none"])
            if choose() < 0.5:
                query.update(dict.fromkeys({"stdout", "stream"} & set(query), "1"))
        if case.media_type == "application/x-tar" and choose() < 0.5:
            case.body = _archive()
        if isinstance(case.body, dict):
            self._tame_body(case)

    def _tame_body(self, case: Any) -> None:
        body, choose = case.body, self.random.random
        if case.operation.path == "/containers/create":
            if choose() < 0.9:
                body["Image"] = IMAGE
            if choose() < 0.7:
                body["Cmd"] = ["sleep", "5"]
                body.pop("Entrypoint", None)
        if "Container" in body and choose() < 0.7:
            body["Container"] = self.random.choice(["fuzz-runs", "fuzz-made"])
        if "Cmd" in body and choose() < 0.5:
            body["Cmd"] = ["echo", "a"]
        host = body.get("HostConfig")
        if isinstance(host, dict):
            for key in ("Privileged", "PidMode", "IpcMode", "Devices", "CgroupParent"):
                host.pop(key, None)
            if isinstance(host.get("Binds"), list):
                host["Binds"] = [b for b in host["Binds"] if not str(b).startswith("/")]
            if isinstance(host.get("Mounts"), list):
                host["Mounts"] = [
                    m for m in host["Mounts"] if not isinstance(m, dict) or m.get("Type") != "bind"
                ]

    def send(self, case: Any) -> None:
        """Sends a request and looks at its answer."""
        self._tamed(case)
        method, path = case.operation.method.upper(), case.operation.path
        kwargs = case.as_transport_kwargs(base_url="http://localhost")
        known = ("method", "url", "headers", "params", "json", "data", "files")
        try:
            request = requests.Request(**{k: v for k, v in kwargs.items() if k in known}).prepare()
            body = request.body
            data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        except (ValueError, UnicodeError, TypeError):
            return  # not even a client could send this
        text = f"{method} {request.path_url} {data!r:.2000}"
        begun = time.monotonic()
        try:
            status, kind, answer = self._exchange(request, data)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(Failure(text, f"no answer: {error!r}"))
            return
        spent = time.monotonic() - begun
        key = f"{method} {path}"
        self.times[key] = max(self.times.get(key, 0.0), spent)
        self.statuses[status] += 1
        if status >= 500 and status not in ALLOWED:
            self.failures.append(Failure(text, f"{status} {answer[:500]!r}"))
        elif why := openapi.problem(method, path, status, kind, answer):
            self.failures.append(Failure(text, why))
        if method not in ("GET", "HEAD") and status < 400:
            self.repair()

    def _exchange(self, request: Any, data: Any) -> tuple[int, str, bytes]:
        connection = _Connection(self.engine.paths.socket, HANG)
        try:
            headers = {
                key: value for key, value in request.headers.items()
                if key.lower() not in ("transfer-encoding", "accept-encoding")
            }  # fmt: skip
            connection.request(request.method, request.path_url, data, headers)
            sock = connection.sock
            answer = connection.getresponse()
            streams = any(part in request.path_url for part in _STREAMS)
            body = self._some(sock, answer) if streams else answer.read()
            return answer.status, answer.getheader("Content-Type", ""), body
        finally:
            connection.close()

    @staticmethod
    def _some(sock: socket.socket, answer: http.client.HTTPResponse) -> bytes:
        """What comes of a stream in a moment, up to its last whole line."""
        data = b""
        sock.settimeout(READ)
        try:
            while piece := answer.read1(1 << 16):
                data += piece
                if len(data) > 1 << 20:
                    break
            return data
        except (OSError, http.client.HTTPException):
            return data[: data.rfind(b"\n") + 1]

    # many

    def operations(self, off: bool) -> list[Any]:
        """What is asked; with ``off`` also what is off."""
        found = []
        for result in self.schema.get_all_operations():
            one = result.ok()
            tags = one.definition.raw.get("tags", [])
            if (one.method.upper(), one.path) not in EXCLUDED and (off or "off" not in tags):
                found.append(one)
        return found

    def run(self, examples: int, seconds: float, *, off: bool = False) -> None:
        """``examples`` well-formed requests of each route and a third as many ill-formed ones."""
        deadline = time.monotonic() + seconds
        ways = ((GenerationMode.POSITIVE, examples), (GenerationMode.NEGATIVE, -(-examples // 3)))
        operations = self.operations(off)
        self.random.shuffle(operations)
        for one in operations:
            for mode, count in ways:
                if time.monotonic() > deadline:
                    return
                self._many(one, mode, count)

    def _many(self, operation: Any, mode: GenerationMode, count: int) -> None:
        @seed(self._number)
        @settings(
            max_examples=count, phases=[Phase.generate], deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: Any) -> None:
            self.send(case)

        try:
            one()
        except Unsatisfiable:
            pass  # a request without parameters cannot be ill-formed


def main() -> None:
    """tools/fuzz-api: see its text."""
    from tests import conftest

    parser = argparse.ArgumentParser(prog="tools/fuzz-api")
    parser.add_argument("--seconds", type=float, default=600, help="how long (%(default)g)")
    parser.add_argument("--examples", type=int, default=10, help="per route and round")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="makes a run again")
    options = parser.parse_args()
    conftest._isolate()
    engine = EngineProcess()
    failed: list[Failure] = []
    deadline = time.monotonic() + options.seconds
    try:
        engine.start()
        engine.import_busybox()
        number = options.seed
        while (left := deadline - time.monotonic()) > 0:
            fuzzer = Fuzzer(engine, number)
            fuzzer.run(options.examples, left, off=number == options.seed)
            failed += fuzzer.failures
            print(f"seed {number}: {dict(sorted(fuzzer.statuses.items()))}", flush=True)
            for failure in fuzzer.failures:
                print(f"  {failure.request}\n      {failure.why}", flush=True)
            for key, spent in sorted(fuzzer.times.items(), key=lambda t: -t[1])[:3]:
                print(f"  slowest: {key} {spent:.1f} s")
            number += 1
        log = engine.log.read_text(errors="replace")
        if "Traceback" in log:
            print("in the engine's log:\n" + log[log.index("Traceback") - 500 :][:4000])
            failed.append(Failure("", "a traceback"))
    finally:
        engine.stop()
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
