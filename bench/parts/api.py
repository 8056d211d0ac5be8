"""Create, start and wait for ``true`` through the API, with one client for all."""

from __future__ import annotations

from bench.measure import Aim, Case, Once, in_turns, timed
from bench.peers import IMAGE, Field, Peer


def _once(peer: Peer, mode: str) -> Once:
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": mode}}

    def measure() -> float:
        made: list[str] = []

        def work() -> None:
            made.append(peer.api.call("POST", "/containers/create", body)["Id"])
            peer.api.call("POST", f"/containers/{made[0]}/start")
            status = peer.api.call("POST", f"/containers/{made[0]}/wait")["StatusCode"]
            assert status == 0, status

        took = timed(work)
        peer.api.call("DELETE", f"/containers/{made[0]}?force=1")
        return took

    return measure


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """On a network of the engine's, and without one."""
    engines: list[Peer] = [field.gemel()]
    if (docker := field.dockerd()) is not None:
        engines.append(docker)
    cases = []
    for mode, name in (("bridge", "create, start, wait"), ("none", "the same without network")):
        case = Case("api", name)
        if mode == "bridge":
            case.aims.append(Aim(0.25, "dockerd"))
        candidates = {peer.name: _once(peer, mode) for peer in engines}
        cases.append(in_turns(case, candidates, rounds, seconds / 2))
    return cases
