"""The project of a Compose file, loaded and with its warnings told once. Imports the loader."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Protocol

Project = Any


class Options(Protocol):
    """The global options that name a project."""

    files: tuple[str, ...]
    name_option: str
    profiles: tuple[str, ...]
    env_files: tuple[str, ...]
    project_directory: str


def load(options: Options, *, interpolate: bool = True, check: bool = True) -> Project:
    """Reads the files. Raises InvalidInput with file, line and column of every error."""
    loaded = importlib.import_module("gemel.compose.load").load(
        options.files,
        cwd=os.getcwd(),
        env=os.environ,
        project_dir=options.project_directory,
        env_files=options.env_files,
        profiles=options.profiles,
        name=options.name_option,
        interpolate=interpolate,
        consistency=check,
    )
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return loaded.project
