"""From the API's create to the first HTTP answer of a Python service: a warm replica (a copy of the
service that runs), an ordinary clone that starts it, and containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.engine import EngineProcess

from bench.measure import Aim, Case, in_turns, timed
from bench.parts.vm import _address
from bench.peers import DOCKER, Dockerd, Field, Gemel, Peer, command
from bench.wire import first_answer, wait_until
from gemel.host import namespaces

#: A service of the example shop that needs no other.
_IMAGE = "shop/payments:latest"
_PORT = 8000
#: Seconds for a start that goes badly.
_DEADLINE = 90.0


def _request(runtime: str, snapshot: str) -> dict[str, Any]:
    # the check is for the original: no copy is old enough for a second one
    check = {"Test": ["TCP", str(_PORT)], "Interval": 3_600_000_000_000}
    return {
        "Image": _IMAGE,
        "HostConfig": {"Runtime": runtime} if runtime else {},
        "Labels": {"gemel.snapshot": snapshot} if snapshot else {},
        "Healthcheck": check | {"StartPeriod": 60_000_000_000, "StartInterval": 500_000_000},
    }


def _once(peer: Peer, runtime: str = "", snapshot: str = "", boot: str = "") -> Callable[[], float]:
    body = _request(runtime, snapshot)
    if not isinstance(peer, Gemel):
        del body["Healthcheck"]

    def measure() -> float:
        made: list[str] = []

        def work() -> dict[str, Any]:
            made.append(peer.api.call("POST", "/containers/create", body)["Id"])
            peer.api.call("POST", f"/containers/{made[0]}/start")
            told: dict[str, Any] = peer.api.call("GET", f"/containers/{made[0]}/json")
            address = _address(told)
            namespaces.inside(peer.netns, lambda: first_answer(address, _PORT, _DEADLINE))
            return told

        told: list[dict[str, Any]] = []
        try:
            took = timed(lambda: told.append(work()))
        finally:
            for id in made:
                peer.api.call("DELETE", f"/containers/{id}?force=1")
        if boot and told[0]["Boot"] != boot:
            raise RuntimeError(f"not {boot}: {told[0]['Boot']}, {told[0]['BootReason']}")
        return took

    return measure


def _original(gemel: Gemel) -> None:
    """The instance of which the others are copies, once its snapshot is there."""
    one = gemel.api.call("POST", "/containers/create", _request("microvm", "warm"))["Id"]
    gemel.api.call("POST", f"/containers/{one}/start")
    said = "a snapshot of the running instance"
    wait_until(lambda: said in gemel.engine.log.read_text(), _DEADLINE, "the snapshot")


def _load(gemel: Gemel, docker: Dockerd, field: Field) -> None:
    archive = field.folder / "service.tar"
    host = f"unix://{gemel.engine.paths.socket}"
    command([DOCKER, "--host", host, "save", "-o", archive, _IMAGE], docker.env)
    docker.api.call("POST", "/images/load", archive.read_bytes())


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """In turns, in an engine of its own: it has the images of the shop."""
    gemel = Gemel(before=EngineProcess.import_shop)
    docker = field.dockerd()
    try:
        _original(gemel)
        calls = {
            "warm micro VM": _once(gemel, "microvm", "warm", "warm"),
            "cloned micro VM": _once(gemel, "microvm", "", "cloned"),
            "gemel container": _once(gemel),
        }
        if docker is not None:
            _load(gemel, docker, field)
            calls["dockerd container"] = _once(docker)
        aims = [Aim(0.5, beside="cloned micro VM", of="warm micro VM")]
        case = Case("warm", "create to first HTTP answer of a Python service", aims=aims)
        return [in_turns(case, calls, min(rounds, 7), seconds)]
    finally:
        gemel.stop()
