"""``up -d`` and ``down`` of 20 small services."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import Aim, Case, in_turns, timed
from bench.peers import IMAGE, Field, command

SERVICES = 20


def write_file(folder: Path, name: str, services: int) -> Path:
    """A Compose file of so many services that wait to be ended."""
    lines = ["services:"]
    for number in range(services):
        lines += [
            f"  s{number:03}:",
            f"    image: {IMAGE}",
            '    command: ["sleep", "3600"]',
            "    environment:",
            f'      NUMBER: "{number}"',
            "    stop_signal: SIGKILL",
        ]
    # Compose v1 wants a version
    text = "\n".join(['version: "3.7"', *lines]) + "\n"
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "docker-compose.yml").write_text(text)
    return place


class Tool:
    """A program that brings the project up and down."""

    def __init__(
        self, name: str, argv: Sequence[str | Path], env: dict[str, str], place: Path
    ) -> None:
        self.name = name
        self._argv, self._env, self._place = argv, env, place
        self.downs: list[float] = []

    def up(self) -> float:
        """Seconds of ``up -d``."""
        return timed(lambda: command([*self._argv, "up", "-d"], self._env, self._place))

    def down(self) -> float:
        """Seconds of ``down``."""
        return timed(lambda: command([*self._argv, "down"], self._env, self._place))

    def round(self) -> float:
        """Up and down; the seconds of the first, those of the second are kept."""
        took = self.up()
        self.downs.append(self.down())
        return took


def tools(field: Field, place: Path) -> list[Tool]:
    """gemel and the Composes there are."""
    gemel = field.gemel()
    found = [Tool("gemel", gemel.cli, gemel.env, place)]
    docker = field.dockerd()
    for name, program in field.compose():
        assert docker is not None
        found.append(Tool(name, [program], docker.env, place))
        if name == "compose v2":
            found.append(Tool("compose v2 on gemel", [program], gemel.env, place))
    return found


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """``up -d`` and ``down`` in turns."""
    place = write_file(field.folder, "twenty", SERVICES)
    found = tools(field, place)
    up = Case("compose", f"up -d, {SERVICES} services", aims=[Aim(1 / 3, "compose v2")])
    in_turns(up, {tool.name: tool.round for tool in found}, min(rounds, 7), seconds)
    down = Case("compose", f"down, {SERVICES} services")
    down.series = {tool.name: tool.downs[1:] for tool in found}  # the first was to warm up
    return [up, down]
