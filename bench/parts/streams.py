"""What runs through a stream, by the same docker client: exec, and a log of 100 MB."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.measure import Aim, Case, in_turns, timed
from bench.peers import DOCKER, IMAGE, Field, Peer, command
from bench.wire import wait_until

_MEGABYTES = 100
_END = "all of it"
_LINE = "a line of a log, as long as many are: 2026-11-28T12:00:00Z GET /index.html 200 0.004 s"


def _made(peer: Peer) -> None:
    size = _MEGABYTES << 20
    script = f"yes '{_LINE}' | head -c {size}; echo; echo {_END}; exec sleep 3600"
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"Init": False}}
    peer.api.call("POST", "/containers/create?name=streams", body)
    peer.api.call("POST", "/containers/streams/start")
    argv: list[str | Path] = [DOCKER, "logs", "--tail", "1", "streams"]
    wait_until(lambda: _END in command(argv, peer.env), 180, "the log", pause=0.5)


def _logs(peer: Peer) -> float:
    def work() -> None:
        done = subprocess.run(
            [str(DOCKER), "logs", "streams"],
            env=peer.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=300,
        )
        assert done.returncode == 0

    return timed(work)


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """In turns, gemel and dockerd."""
    engines: list[Peer] = [field.gemel()]
    if (docker := field.dockerd()) is not None:
        engines.append(docker)
    exec_ = Case("streams", "docker exec true", aims=[Aim(1, "dockerd")])
    logs = Case("streams", f"docker logs, {_MEGABYTES} MB", aims=[Aim(1, "dockerd")])
    try:
        for peer in engines:
            _made(peer)
        in_turns(
            exec_,
            {
                peer.name: lambda env=peer.env: timed(  # type: ignore[misc]
                    lambda: command([DOCKER, "exec", "streams", "true"], env)
                )
                for peer in engines
            },
            rounds,
            seconds / 2,
        )
        in_turns(
            logs,
            {peer.name: lambda peer=peer: _logs(peer) for peer in engines},  # type: ignore[misc]
            min(rounds, 5),
            seconds / 2,
        )
    finally:
        for peer in engines:
            peer.api.call("DELETE", "/containers/streams?force=1")
    return [exec_, logs]
