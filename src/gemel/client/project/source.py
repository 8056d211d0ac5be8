"""The project of a Compose file, and what of it the engine has now. Imports the loader."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Collection, Iterable
from typing import Protocol

from gemel.client.engine import Client
from gemel.client.project import images
from gemel.compose import load as load_files
from gemel.compose.files import DiskReader, Remote
from gemel.compose.loader import Loaded
from gemel.compose.observed import Observed, observe, project_from
from gemel.compose.problems import WrongFiles
from gemel.compose.project import Project, Service
from gemel.compose.requests import PREFIX
from gemel.errors import InvalidInput

__all__ = ["Loaded", "Project", "Service", "from_engine", "load", "load_all", "look"]


class Options(Protocol):
    """The global options that name a project."""

    files: tuple[str, ...]
    name_option: str
    profiles: tuple[str, ...]
    env_files: tuple[str, ...]
    project_directory: str

    @property
    def artifacts(self) -> Remote:
        """Fetches what is named with oci://."""
        ...


def load(
    options: Options,
    *,
    interpolate: bool = True,
    check: bool = True,
    resolve_env: bool = True,
) -> Project:
    """The project of ``load_all``."""
    return load_all(options, interpolate=interpolate, check=check, resolve_env=resolve_env).project


def load_all(
    options: Options,
    *,
    interpolate: bool = True,
    check: bool = True,
    resolve_env: bool = True,
) -> Loaded:
    """Reads the files; warnings go to standard error. Where everything stands comes with it.

    Raises InvalidInput with file, line and column of every error, NotFound without a file.
    """
    try:
        loaded = load_files(
            options.files,
            cwd=os.getcwd(),
            env=os.environ,
            project_dir=options.project_directory,
            env_files=options.env_files,
            profiles=options.profiles,
            name=options.name_option,
            interpolate=interpolate,
            consistency=check,
            resolve_env=resolve_env,
            reader=reader(options.files),
            remote=options.artifacts,
        )
    except WrongFiles as error:
        _warn(error.warnings)
        raise
    _warn(loaded.warnings)
    return loaded


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


@functools.cache
def _read_once() -> str:
    try:
        return sys.stdin.buffer.read(DiskReader.LARGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("standard input cannot be read", str(error)) from error


def reader(files: tuple[str, ...]) -> DiskReader:
    """Reads files; with ``-`` among them also standard input, which may be asked for again."""
    return DiskReader(_read_once() if "-" in files else "")


def look(client: Client, name: str, refs: Collection[str] = (), parallel: int = 16) -> Observed:
    """What the engine has of a project, and which of the images ``refs``."""
    filters = {"label": [f"{PREFIX}project={name}"]}
    return observe(
        client.get("/containers/json", all=True, filters=filters),
        client.get("/networks"),
        client.get("/volumes").get("Volumes") or [],
        images.ids(client, refs, parallel),
    )


def from_engine(client: Client, name: str) -> Project:
    """A project as far as its containers tell (no Compose file)."""
    return project_from(name, look(client, name))
