"""What makes the command line quick: it loads little, and says the same as the commands."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from gemel.cli.main import cli
from gemel.cli.registry import ALL

HEAVY = ("rich", "yaml", "aiohttp", "asyncio", "msgspec", "ssl", "email", "subprocess", "pyroute2")


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded once ``code`` has run in a new Python."""
    text = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import gemel.cli.main",
        "from gemel.cli.main import call; call(['--help'])",
        "from gemel.cli.main import call; call(['--host', 'unix:///nobody', '-p', 'x', 'ps'])",
        "import gemel.cli.commands.run",
        "import gemel.cli.commands.execute",
    ],
)
def test_the_quick_commands_load_nothing_heavy(code: str) -> None:
    assert loaded(code) & set(HEAVY) == set()


@pytest.mark.parametrize("name", list(ALL))
def test_every_command_has_help_and_the_registry_tells_the_same_name(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
    if isinstance(command, click.Group):
        for sub, inner in command.commands.items():
            assert inner.help, f"{name} {sub} has no help"


def test_the_lines_of_help_fit_a_terminal() -> None:
    for name, entry in ALL.items():
        assert len(entry.help) <= 60, name
        assert not entry.help.endswith(".")
