"""gemel debug: a shell beside any service, and debuggers whose breakpoints are hit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.dap import Dap, local, stop_at
from tests.engine import EngineProcess

pytestmark = pytest.mark.root

PROGRAM = """\
import time


def work(number):
    doubled = number * 2
    return doubled


number = 20
while True:
    number += 1
    work(number)
    time.sleep(0.05)
"""
NODE = """\
function work(number) {
  return number * 2;
}
let number = 0;
setInterval(() => work(++number), 50);
"""
COMPOSE = """\
name: debugged
services:
  box:
    image: gemel/python
    working_dir: /app
    user: "1000"
    command: [python3, -u, main.py]
    volumes: ["./box:/app:ro"]
  vm:
    image: gemel/python
    runtime: microvm
    working_dir: /app
    user: "1000"
    command: [python3, -u, main.py]
    configs: [{source: program, target: /app/main.py}]
    develop:
      watch: [{action: sync, path: ./vm, target: /app}]
configs:
  program: {file: ./vm/main.py}
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """One with Python's base image and the toolbox."""
    engine = EngineProcess()
    engine.import_shop()
    engine.import_toolbox()
    try:
        engine.start()
        engine.import_busybox()
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def project(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "compose.yaml").write_text(COMPOSE)
    for name in ("box", "vm"):
        (folder / name).mkdir()
        (folder / name / "main.py").write_text(PROGRAM)
    engine.gemel("up", "-d", "--quiet-pull", cwd=folder)
    yield folder
    engine.gemel("down", "-t", "0", cwd=folder)


@contextlib.contextmanager
def debugging(engine: EngineProcess, folder: Path, *args: str) -> Iterator[int]:
    """`gemel debug` with a debugger, in the background; its port on this machine."""
    command = [sys.executable, "-m", "gemel", "debug", "--port", "0", *args]
    process = subprocess.Popen(
        command,
        env=engine.env,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        ready = select.select([process.stdout], [], [], 330)[0]
        line = process.stdout.readline() if ready else ""
        if not line.startswith("127.0.0.1:"):
            os.killpg(process.pid, signal.SIGTERM)
            raise AssertionError(f"{line}{process.stderr.read()}\n{engine.log.read_text()[-2000:]}")
        yield int(line.split()[0].partition(":")[2])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", ["box", "vm"])
def test_a_breakpoint_of_python(engine: EngineProcess, project: Path, service: str) -> None:
    """In both runtimes: the editor's launch.json leads to the line, and the service goes on."""
    source = str(project / service / "main.py")
    with debugging(engine, project, service, "--attach", "python") as port:
        known = json.loads((project / ".vscode" / "launch.json").read_text())["configurations"]
        mine = next(c for c in known if c["name"] == f"gemel: {service}")
        assert mine["connect"]["port"] == port
        mappings = [
            m | {"localRoot": m["localRoot"].replace("${workspaceFolder}", str(project))}
            for m in mine["pathMappings"]
        ]
        dap = Dap(port, timeout=300)
        frame = stop_at(dap, source, 6, mappings)
        assert (frame["name"], frame["line"]) == ("work", 6)
        assert frame["source"]["path"] == source
        number = int(local(dap, frame, "number"))
        assert int(local(dap, frame, "doubled")) == 2 * number
        dap.ask("disconnect", terminateDebuggee=False)
        dap.close()
    with contextlib.suppress(OSError):
        Dap(port, timeout=2).close()
        raise AssertionError("the port is still there")
    state = engine.ok("GET", f"/containers/debugged-{service}-1/json")["State"]
    assert state["Running"] and state["Pid"], state


def test_a_second_debugger(engine: EngineProcess, project: Path) -> None:
    """It could not be relied on, so it is refused; started anew, the service takes one again."""
    source = str(project / "box" / "main.py")
    mappings = [{"localRoot": str(project / "box"), "remoteRoot": "/app"}]
    for _ in range(2):
        engine.gemel("restart", "-t", "0", "box", cwd=project)
        with debugging(engine, project, "box", "--attach", "python", "--no-launch") as port:
            dap = Dap(port)
            frame = stop_at(dap, source, 6, mappings)
            assert int(local(dap, frame, "doubled")) == 2 * int(local(dap, frame, "number"))
            dap.close()  # the editor is killed: the service goes on all the same
    again = engine.gemel(
        "debug", "box", "--attach", "python", "--no-launch", cwd=project, check=False
    )
    assert again.returncode != 0
    assert "gemel restart" in again.stderr and "Traceback" not in again.stderr, again.stderr
    state = engine.ok("GET", "/containers/debugged-box-1/json")["State"]
    assert state["Running"], state


def test_waiting_for_the_debugger(engine: EngineProcess, project: Path) -> None:
    """Started anew, it stops at its first line though nobody knew when it would come there."""
    source = str(project / "box" / "main.py")
    with debugging(engine, project, "box", "--attach", "python", "--wait", "--no-launch") as port:
        dap = Dap(port)
        mappings = [{"localRoot": str(project / "box"), "remoteRoot": "/app"}]
        frame = stop_at(dap, source, 5, mappings)
        assert local(dap, frame, "number") == "21"  # the first call
        dap.ask("disconnect", terminateDebuggee=False)
        dap.close()


@pytest.mark.parametrize("service", ["box", "vm"])
def test_gdbserver(engine: EngineProcess, project: Path, service: str) -> None:
    """gdb on this machine's side reads the service's registers over the forwarded port."""
    with debugging(engine, project, service, "--attach", "gdb", "--no-launch") as port:
        gdb = ["gdb", "-nx", "-batch", "-ex", "set sysroot /nowhere"]
        gdb += ["-ex", f"target remote 127.0.0.1:{port}", "-ex", "info registers rip"]
        done = subprocess.run(gdb, capture_output=True, text=True, timeout=200)
        assert "rip" in done.stdout, done.stdout + done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_a_breakpoint_of_node(engine: EngineProcess, tmp_path: Path, runtime: str) -> None:
    """Node's inspector is switched on in a service that did not ask for it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js on this machine to put into a service")
    (tmp_path / "main.js").write_text(NODE)
    binds = ["-v", f"{os.path.realpath(node)}:/usr/bin/node:ro", "-v", f"{tmp_path}:/app:ro"]
    options = ("--name", "noded", "--runtime", runtime)
    engine.gemel("run", "-d", *options, *binds, "gemel/python", "node", "/app/main.js")
    try:
        with debugging(engine, tmp_path, "noded", "--attach", "node") as port:
            frame = asyncio.run(_paused(port))
            assert frame["functionName"] == "work"
    finally:
        engine.gemel("rm", "-f", "noded")


async def _paused(port: int) -> Any:
    """The frame in which Node stands, once a breakpoint of ours was hit (CDP)."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(200):
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            target = (await answer.json())[0]
        address = f"ws://127.0.0.1:{port}/{target['id']}"
        async with session.ws_connect(address) as socket:
            wanted = {"lineNumber": 1, "urlRegex": ".*main.js"}
            for id, (method, params) in enumerate(
                (("Debugger.enable", {}), ("Debugger.setBreakpointByUrl", wanted))
            ):
                await socket.send_json({"id": id, "method": method, "params": params})
            async for message in socket:
                said = message.json()
                if said.get("method") == "Debugger.paused":
                    return said["params"]["callFrames"][0]
    raise AssertionError("the inspector has closed the connection")


def test_held_before_the_first_instruction(engine: EngineProcess) -> None:
    engine.gemel("run", "-d", "--name", "early", "test/busybox", "sh", "-c", "echo it runs; exit 4")
    engine.wait_for("exited", name="early")
    script = "grep -o stopped /proc/1/status; tr '\\0' ' ' < /proc/1/cmdline"
    done = engine.gemel("debug", "--pause-at-start", "early", "--", "bash", "-c", script)
    assert done.stdout == "stopped\nsh -c echo it runs; exit 4 "
    engine.wait_for("exited", name="early")  # leaving has let it go
    assert engine.gemel("logs", "early").stdout.count("it runs") == 2
    engine.gemel("rm", "-f", "early")


def test_what_does_not_fit(engine: EngineProcess, project: Path) -> None:
    done = engine.gemel("debug", "--attach", "node", "box", cwd=project, check=False)
    assert done.returncode == 1
    assert "the service runs no Node.js" in done.stderr and "python3" in done.stderr
    done = engine.gemel("debug", "--attach", "cobol", "box", cwd=project, check=False)
    assert "no debugger 'cobol'" in done.stderr


def test_a_shell_beside_an_image_without_one(engine: EngineProcess) -> None:
    """After it has ended too, with its files and its environment."""
    script = "echo written > /root/file; rm /bin/sh; exec /bin/busybox sleep 1000"
    engine.gemel(
        "run", "-d", "--name", "bare", "-e", "COLOUR=blue", "test/busybox", "sh", "-c", script
    )
    deadline = time.monotonic() + 60
    while b"sleep" not in _command(engine, "bare") and time.monotonic() < deadline:
        time.sleep(0.05)
    done = engine.gemel(
        "debug",
        "bare",
        "--",
        "bash",
        "-c",
        "ps -o args= 1; strace -V | head -1; exit 5",
        check=False,
    )
    assert done.returncode == 5
    assert done.stdout.splitlines()[0] == "/bin/busybox sleep 1000"
    assert done.stdout.splitlines()[1].startswith("strace")
    engine.gemel("kill", "bare")
    refused = engine.gemel("debug", "bare", "--", "true", check=False)
    assert refused.returncode == 1 and "--from-crash" in refused.stderr
    script = "cat /service/root/file; as-service /bin/busybox env"
    done = engine.gemel("debug", "--from-crash", "bare", "--", "bash", "-c", script)
    assert done.stdout.startswith("written\n") and "COLOUR=blue" in done.stdout
    engine.gemel("rm", "-f", "bare")


def _command(engine: EngineProcess, name: str) -> bytes:
    pid = engine.ok("GET", f"/containers/{name}/json")["State"]["Pid"]
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_an_engine_that_dies(engine: EngineProcess) -> None:
    """The next one ends the sessions that nobody drives any more, and leaves the service alone."""
    engine.gemel("run", "-d", "--name", "stays", "test/busybox", "sleep", "1000")
    pid = engine.ok("GET", "/containers/stays/json")["State"]["Pid"]
    command = [sys.executable, "-m", "gemel", "debug", "stays", "--", "sleep", SECONDS]
    session = subprocess.Popen(command, env=engine.env, stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not _sessions(engine) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _sessions(engine)
        engine.kill_hard()
        session.wait(60)
        engine.start()
        engine.settle(lambda: not _sessions(engine), "a session goes on")
        state = engine.ok("GET", "/containers/stays/json")["State"]
        assert state["Running"] and state["Pid"] == pid
    finally:
        session.kill()
        session.communicate()
        engine.gemel("rm", "-f", "stays")


#: What a session sleeps: a number that no other run's has.
SECONDS = f"4711{os.getpid()}"


def _sessions(engine: EngineProcess) -> list[str]:
    """Processes of debug sessions that this engine, or one before it, has begun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{SECONDS}\0".encode():
                found.append(path.parent.name)
    return found
