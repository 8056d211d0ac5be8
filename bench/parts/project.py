"""What reading and planning a project costs, and an ``up`` that has nothing to do."""

from __future__ import annotations

from pathlib import Path

from bench.measure import Aim, Case, Once, in_turns, timed
from bench.parts.compose import Tool, tools, write_file
from bench.peers import Field, command
from gemel.compose import load
from gemel.compose.observed import observe
from gemel.compose.plan import UpOptions, plan_up

_MANY, _RUNNING = 500, 50


def _config(field: Field, place: Path, rounds: int, seconds: float) -> Case:
    gemel, docker = field.gemel(), field.dockerd()
    calls: dict[str, Once] = {
        "gemel": lambda: timed(lambda: command([*gemel.cli, "config", "-q"], gemel.env, place))
    }
    for name, program in field.compose():
        assert docker is not None
        env = docker.env
        calls[name] = lambda program=program, env=env: timed(  # type: ignore[misc]
            lambda: command([program, "config", "-q"], env, place)
        )
    case = Case("project", f"config -q, {_MANY} services", aims=[Aim(0.5)])
    return in_turns(case, calls, rounds, seconds)


def _plan(place: Path, rounds: int, seconds: float) -> Case:
    project = load((), cwd=str(place), env={}, name="bench").project
    images = dict.fromkeys((project.image_of(s) for s in project.services.values()), "sha256:0")
    nothing = observe([], [], [], images)

    def once() -> float:
        return timed(lambda: plan_up(project, nothing, UpOptions()))

    case = Case("project", f"plan of {_MANY} new services", aims=[Aim(0.2)])
    case.notes.append("the function alone, in this process")
    return in_turns(case, {"gemel": once}, rounds, seconds)


def _unchanged(field: Field, rounds: int, seconds: float) -> Case:
    """An ``up -d`` of services that run as they should."""
    place = write_file(field.folder, "fifty", _RUNNING)
    started: list[Tool] = []
    case = Case("project", f"up -d, {_RUNNING} services, nothing to do", aims=[Aim(0.5)])
    try:
        for tool in tools(field, place):
            if tool.name in ("gemel", "compose v2"):
                started.append(tool)
                tool.up()
        in_turns(case, {tool.name: tool.up for tool in started}, rounds, seconds)
    finally:
        for tool in started:
            tool.down()
    return case


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """Reading, planning, nothing to do."""
    place = write_file(field.folder, "many", _MANY)
    return [
        _config(field, place, rounds, seconds / 3),
        _plan(place, rounds, seconds / 6),
        _unchanged(field, rounds, seconds / 3),
    ]
