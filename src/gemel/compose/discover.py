"""Which files make a project: named ones, COMPOSE_FILE, or those of a folder and its parents."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence

from gemel.compose import paths
from gemel.compose.files import Reader, Remote, no_remote
from gemel.errors import NotFound, Unsupported

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


def find(
    cwd: str,
    files: Sequence[str],
    environment: Mapping[str, str],
    reader: Reader,
    warnings: dict[str, None],
    project_dir: str = "",
    remote: Remote = no_remote,
) -> list[str]:
    """Absolute paths of the project's files (``-``: standard input); what is at ``oci://`` is
    fetched. Raises NotFound, Unsupported for another address, what ``remote`` raises."""
    if not files and environment.get("COMPOSE_FILE"):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = [f for f in environment["COMPOSE_FILE"].split(separator) if f]
    if files:
        _known(files)
        return [_path(f, cwd, remote) for f in files]
    start = os.path.normpath(os.path.join(cwd, project_dir))
    folder = start
    while True:
        found = _pick(folder, NAMES, reader, warnings)
        if found:
            return [found, *filter(None, [_pick(folder, OVERRIDES, reader, warnings)])]
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    raise NotFound(
        "no configuration file provided: not found",
        f"Neither {start} nor a folder above it holds one of {', '.join(NAMES)}",
        "Change into the project's folder, or name the file with -f",
    )


def _path(file: str, cwd: str, remote: Remote) -> str:
    if paths.is_artifact(file):
        return remote(file)
    return file if file == "-" else os.path.normpath(os.path.join(cwd, file))


def _known(files: Sequence[str]) -> None:
    """Raises Unsupported for a file that is named by an address of another kind."""
    for name in files:
        if "://" in name and not paths.is_artifact(name):
            raise Unsupported(
                f"a Compose file is not read from an address: {name}",
                resolution="fetch it first, then name the file with -f (- is standard input); "
                "what `gemel publish` has put into a registry is at oci://",
            )


def _pick(folder: str, names: Sequence[str], reader: Reader, warnings: dict[str, None]) -> str:
    there = [path for n in names if reader.is_file(path := os.path.join(folder, n))]
    if len(there) > 1:
        warnings[f"Found multiple config files with supported names: {', '.join(there)}"] = None
        warnings[f"Using {there[0]}"] = None
    return there[0] if there else ""
