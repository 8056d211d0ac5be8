"""Two hundred containers: ``docker ps``, and what it takes while fifty clients are at work."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.crowd import EACH
from bench.measure import Aim, Case, in_turns, timed
from bench.peers import DOCKER, IMAGE, TOP, Field, Peer, command
from bench.wire import Api, Refused

CONTAINERS = 200
_LISTED = "GET /containers/json"
#: Seconds of the crowd in one round.
_SECONDS = 8.0
_SCRIPT = "while :; do echo a line of some thirty letters; sleep 0.1; done"


def _socket(peer: Peer) -> str:
    return peer.env["DOCKER_HOST"].removeprefix("unix://")


def _make(socket: str, number: int) -> None:
    api = Api(Path(socket))
    command = ["sh", "-c", _SCRIPT] if number == 0 else ["sleep", "3600"]
    host = {"NetworkMode": "bridge" if number % 4 == 0 else "none"}
    body = {"Image": IMAGE, "Cmd": command, "HostConfig": host, "Labels": {"n": str(number)}}
    try:
        made = api.call("POST", f"/containers/create?name=load{number}", body)
        api.call("POST", f"/containers/{made['Id']}/start")
    finally:
        api.close()


def fill(peer: Peer, seconds: float) -> int:
    """Starts the containers, as many as fit into the time; how many run."""
    end = time.monotonic() + seconds
    socket = _socket(peer)
    with ThreadPoolExecutor(4) as pool:
        for begin in range(0, CONTAINERS, 20):
            if begin and time.monotonic() > end:
                return begin
            list(pool.map(lambda n: _make(socket, n), range(begin, begin + 20)))
    return CONTAINERS


def _crowd(peer: Peer, took: dict[str, list[float]]) -> float:
    argv = [sys.executable, "-m", "bench.crowd", _socket(peer), IMAGE, str(_SECONDS), "load0"]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{TOP}:{TOP / 'src'}"}
    found = json.loads(command(argv, env, cwd=TOP))
    for route, times in found.items():
        took[route] += times
    return float(statistics.median(found[_LISTED]))


def _figures(times: list[float]) -> str:
    ordered = sorted(times)
    high = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
    shown = (statistics.median(ordered), high, ordered[-1])
    return " / ".join(f"{one * 1000:.0f}" for one in shown) + f" ms of {len(ordered)}"


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """Both engines with as many containers; in turns."""
    engines: list[Peer] = [field.gemel()]
    if (docker := field.dockerd()) is not None:
        engines.append(docker)
    counts = {peer.name: fill(peer, seconds) for peer in engines}
    least = min(counts.values())
    try:
        for peer in engines:
            for number in range(least, counts[peer.name]):
                peer.api.call("DELETE", f"/containers/load{number}?force=1")
        return _measured(engines, least, rounds, seconds)
    finally:
        for peer in engines:
            for number in range(counts[peer.name]):
                try:
                    peer.api.call("DELETE", f"/containers/load{number}?force=1&v=1")
                except Refused:
                    continue


def _measured(engines: list[Peer], count: int, rounds: int, seconds: float) -> list[Case]:
    shown = Case("load", f"docker ps, {count} containers", aims=[Aim(1, "dockerd")])
    asked = Case("load", f"{_LISTED}, {count} containers")
    busy = Case("load", f"the same, {5 * EACH} clients at work", aims=[Aim(0.05)])
    if DOCKER.exists():
        in_turns(
            shown,
            {
                peer.name: lambda env=peer.env: timed(lambda: command([DOCKER, "ps"], env))  # type: ignore[misc]
                for peer in engines
            },
            rounds,
            seconds / 4,
        )
    in_turns(
        asked,
        {
            peer.name: lambda api=peer.api: timed(lambda: api.call("GET", "/containers/json"))  # type: ignore[misc]
            for peer in engines
        },
        rounds,
        seconds / 8,
    )
    took: dict[str, dict[str, list[float]]] = {p.name: defaultdict(list) for p in engines}
    crowds = {p.name: (lambda p=p: _crowd(p, took[p.name])) for p in engines}
    in_turns(busy, crowds, min(rounds, 3), seconds / 2, warm_up=0)
    # every request by itself, not the medians of the rounds
    busy.series = {name: routes[_LISTED] for name, routes in took.items()}
    busy.notes.append("median / 95th of a hundred / longest:")
    for name, routes in took.items():
        busy.notes += [f"{name}: {route}: {_figures(times)}" for route, times in routes.items()]
    return [shown, asked, busy]
