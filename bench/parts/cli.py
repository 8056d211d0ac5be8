"""Commands as a person calls them, the start of the program included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import Aim, Case, Once, in_turns, timed
from bench.peers import DOCKER, IMAGE, Field, command

_TRUE = ["run", "--rm", IMAGE, "true"]


def _call(argv: Sequence[str | Path], env: dict[str, str]) -> Once:
    return lambda: timed(lambda: command(argv, env, Path("/")))


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """``run --rm`` of ``true`` beside docker's and podman's; ``--help`` and ``ps``."""
    gemel = field.gemel()
    calls: dict[str, Once] = {"gemel": _call([*gemel.cli, *_TRUE], gemel.env)}
    quick: dict[str, dict[str, Once]] = {
        "--help": {"gemel": _call([*gemel.cli, "--help"], gemel.env)},
        "ps": {"gemel": _call([*gemel.cli, "ps"], gemel.env)},
    }
    docker, podman = field.dockerd(), field.podman()
    if docker is not None:
        calls["docker on dockerd"] = _call([DOCKER, *_TRUE], docker.env)
        calls["docker on gemel"] = _call([DOCKER, *_TRUE], gemel.env)
        quick["ps"]["docker on dockerd"] = _call([DOCKER, "ps"], docker.env)
        quick["--help"]["docker on dockerd"] = _call([DOCKER, "--help"], docker.env)
    if podman is not None:
        calls["podman"] = _call([*podman.argv, *_TRUE], podman.env)
    cases = [
        Case("cli", "run --rm IMAGE true", aims=[Aim(0.5, "docker on dockerd")]),
        Case("cli", "--help", aims=[Aim(0.1)]),
        Case("cli", "ps", aims=[Aim(0.12)]),
    ]
    in_turns(cases[0], calls, rounds, seconds * 0.8)
    for case in cases[1:]:
        in_turns(case, quick[case.name], rounds, seconds * 0.1)
    return cases
