"""A real engine for tests: its own root and run folder, started as a user's would be."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemel.model.paths import Paths
from tests import shopimages, toolboximage
from tests.images import busybox_tar
from tests.kernels import use_kernels

SOURCE = Path(__file__).parents[1] / "src"
CACHE = Path(os.environ.get("GEMEL_TEST_CACHE", Path(__file__).parents[1] / "build/test-cache"))
IMAGE = "test/busybox:latest"
#: Run folders of all engines that were started; the leak check looks at them.
STARTED: list[Path] = []


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class EngineProcess:
    """An engine (``gemel daemon``) with folders of its own."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.base = Path(tempfile.mkdtemp(prefix="gt", dir="/tmp"))
        self.paths = Paths(self.base / "root", self.base / "run")
        self.paths.root.mkdir()
        if (CACHE / "kernels").is_dir() or os.environ.get("GEMEL_TEST_KERNEL"):
            use_kernels(self.paths)
        STARTED.append(self.base)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.base / "daemon.log"

    @property
    def env(self) -> dict[str, str]:
        """Environment in which every client finds this engine."""
        return {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "GEMEL_ROOT": str(self.paths.root),
            "GEMEL_RUN_DIR": str(self.paths.run),
            "DOCKER_HOST": f"unix://{self.paths.socket}",
            "DOCKER_BUILDKIT": "0",
            "HOME": str(self.base),
            "NO_COLOR": "1",
        }

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gemel", "daemon", *self.options],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/_ping", timeout=5)[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the engine did not start:\n{self.log.read_text()[-4000:]}")

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        timeout: float = 120,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """One request to the API: status and decoded answer."""
        connection = _Connection(self.paths.socket, timeout)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = dict(headers or {})
        if body is not None:
            kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
            headers.setdefault("Content-Type", kind)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(raw) if raw else None
        except ValueError:
            return answer.status, raw

    def answer(self, method: str, path: str, timeout: float = 120) -> tuple[int, str, bytes]:
        """One request to the API: status, Content-Type, body."""
        connection = _Connection(self.paths.socket, timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

    @staticmethod
    def settle(condition: Callable[[], object], complaint: str, timeout: float = 120) -> None:
        """Waits until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, complaint
            time.sleep(0.05)

    def ok(
        self,
        method: str,
        path: str,
        body: Any = None,
        timeout: float = 120,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The same; anything but success fails the test."""
        status, answer = self.call(method, path, body, timeout, headers)
        assert status < 400, f"{method} {path}: {status} {answer}"
        return answer

    def gemel(
        self,
        *args: str,
        input: str | None = None,
        cwd: Path | None = None,
        timeout: float = 180,
        check: bool = True,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line against this engine."""
        done = subprocess.run(
            [sys.executable, "-m", "gemel", *args],
            env={**self.env, **(env or {})},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            cwd=cwd or self.base,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, (
                f"gemel {args}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def import_busybox(self, ref: str = IMAGE) -> None:
        """The image that most tests use."""
        repo, _, tag = ref.partition(":")
        self.ok("POST", f"/images/create?fromSrc=-&repo={repo}&tag={tag}", busybox_tar())

    def import_shop(self) -> None:
        """The images of the example shop; before the engine is started."""
        assert self.process is None, "the engine reads its list of images when it starts"
        shopimages.link(CACHE, self.paths)

    def import_toolbox(self) -> None:
        """The tools of debug sessions; before the engine is started, after other images."""
        assert self.process is None, "the engine reads its list of images when it starts"
        toolboximage.add(CACHE, self.paths)

    def kill_hard(self) -> None:
        """kill -9, as a crash."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self.process = None

    def stop(self) -> None:
        """Ends everything: containers, networks, the engine, its folders."""
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
            end = time.monotonic() + 60
            # again, should one be about to go by itself
            while (left := self.ok("GET", "/containers/json?all=1")) and time.monotonic() < end:
                for one in left:
                    self.call("DELETE", f"/containers/{one['Id']}?force=1&v=1")
            for network in self.ok("GET", "/networks"):
                if network["Name"] not in ("bridge", "host", "none"):
                    self.call("DELETE", f"/networks/{network['Id']}")
        finally:
            assert self.process is not None
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                raise AssertionError(
                    f"the engine did not end:\n{self.log.read_text()[-4000:]}"
                ) from None
            self.process = None
        if (self.paths.kernels).is_symlink():
            self.paths.kernels.unlink()
        self._remove()

    def _remove(self) -> None:
        """Removes the folders; what ends after the engine may still take a file of its own away."""
        end = time.monotonic() + 30
        while self.base.exists():
            try:
                shutil.rmtree(self.base)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def wait_for(self, what: str, timeout: float = 120, **labels: str) -> None:
        """Waits until a container has the state (``running``, ``healthy``, ``exited``)."""
        name = labels["name"]
        deadline = time.monotonic() + timeout
        state: Any = None
        while time.monotonic() < deadline:
            state = self.ok("GET", f"/containers/{name}/json")["State"]
            health = state.get("Health", {}).get("Status")
            if what in (state["Status"], health):
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} is not {what} after {timeout:g} s: {state}")
