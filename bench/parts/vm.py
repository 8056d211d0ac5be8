"""API create to first HTTP answer: micro VMs that stood by, cloned and cold, and containers."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import Aim, Case, Once, in_turns, timed
from bench.peers import DOCKER, IMAGE, Field, Gemel, Peer, command
from bench.wire import first_answer
from gemel.host import namespaces

_SERVER = ["sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp"]
#: Seconds for a boot that goes badly.
_DEADLINE = 60.0


def _address(state: dict[str, Any]) -> str:
    (network,) = state["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def _stands_by(peer: Peer) -> None:
    """Waits until a VM stands by, which is made in the background: it is to be taken, not made."""
    assert isinstance(peer, Gemel)
    end = time.monotonic() + _DEADLINE
    while time.monotonic() < end:
        for told in (peer.engine.paths.run / "standby").glob("*/guest.log"):
            with contextlib.suppress(OSError):
                if "rehearsed" in told.read_text():
                    return
        time.sleep(0.05)


def _once(
    peer: Peer, runtime: str = "", *, off: str = "", bind: str = "", standby: bool = False
) -> Once:
    """off: a label that switches something off. standby: waits before for one that stands by."""
    host: dict[str, Any] = {"Runtime": runtime} if runtime else {}
    if bind:
        host["Binds"] = [f"{bind}:/tmp"]
    labels = {off: "off"} if off else {}
    body = {"Image": IMAGE, "Cmd": _SERVER, "HostConfig": host, "Labels": labels}

    def measure() -> float:
        made: list[str] = []

        def work() -> None:
            made.append(peer.api.call("POST", "/containers/create", body)["Id"])
            peer.api.call("POST", f"/containers/{made[0]}/start")
            address = _address(peer.api.call("GET", f"/containers/{made[0]}/json"))
            namespaces.inside(peer.netns, lambda: first_answer(address, 80, _DEADLINE))

        if standby:
            _stands_by(peer)
        try:
            return timed(work)
        finally:
            for id in made:
                peer.api.call("DELETE", f"/containers/{id}?force=1")

    return measure


def _calls(field: Field, bind: str = "") -> dict[str, Once]:
    """The same image and command in each."""
    gemel, docker = field.gemel(), field.dockerd()
    calls: dict[str, Once] = {
        "cloned micro VM": _once(gemel, "microvm", off="gemel.standby", bind=bind),
        "cold micro VM": _once(gemel, "microvm", off="gemel.snapshot", bind=bind),
        "gemel container": _once(gemel, bind=bind),
    }
    if docker is not None:
        calls["dockerd container"] = _once(docker, bind=bind)
    return calls


def _command_line(field: Field, rounds: int, seconds: float) -> Case:
    """``run --rm IMAGE true``, the start of the program included."""
    gemel, docker = field.gemel(), field.dockerd()
    argv: list[str | Path] = [*gemel.cli, "run", "--rm", "--runtime", "microvm", IMAGE, "true"]

    def run_one() -> float:
        _stands_by(gemel)
        return timed(lambda: command(argv, gemel.env, Path("/")))

    calls: dict[str, Once] = {"micro VM that stood by": run_one}
    if docker is not None:
        other: list[str | Path] = [DOCKER, "run", "--rm", IMAGE, "true"]
        calls["docker on dockerd"] = lambda: timed(lambda: command(other, docker.env, Path("/")))
    aims = [Aim(1, "docker on dockerd", "micro VM that stood by")]
    case = Case("vm", "run --rm IMAGE true, by command line", aims=aims)
    return in_turns(case, calls, min(rounds, 7), seconds)


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """Nothing mounted but the image."""
    calls = _calls(field)
    calls["micro VM that stood by"] = _once(field.gemel(), "microvm", standby=True)
    aims = [Aim(2.5, of="cold micro VM"), Aim(1, "dockerd container", "micro VM that stood by")]
    case = Case("vm", "create to first HTTP answer", aims=aims)
    case = in_turns(case, calls, min(rounds, 7), seconds * 0.8)
    return [case, _command_line(field, rounds, seconds * 0.2)]


def run_bind(field: Field, rounds: int, seconds: float) -> list[Case]:
    """The same with a folder of the host bound in, which the page is served from."""
    with tempfile.TemporaryDirectory(prefix="gemel-bench-") as folder:
        case = Case("bind", "create to first HTTP answer, with a bind mount")
        return [in_turns(case, _calls(field, folder), min(rounds, 7), seconds)]
