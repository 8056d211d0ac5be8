"""`gemel help`, as docker has it."""

from __future__ import annotations

import pytest

from gemel.cli.main import call


def test_help_of_a_command_is_that_of_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["help", "image", "pull"]) == 0
    asked = capsys.readouterr().out
    assert asked.startswith("Usage: gemel image pull") and call(["image", "pull", "--help"]) == 0
    assert capsys.readouterr().out == asked
    assert call(["help"]) == 0 and "Examples:" in capsys.readouterr().out
    assert call(["help", "nope"]) == 2
    assert "no such command: nope" in capsys.readouterr().err
