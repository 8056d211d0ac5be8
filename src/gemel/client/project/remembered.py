"""What programs outside of a project have told its services, kept for commands that call none.

``update``, ``up --no-deps`` and a plan that is only shown need the variables of the last ``up``.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gemel.client.engine import Place
from gemel.client.project import placed
from gemel.compose.provider import Variables
from gemel.errors import Failed
from gemel.host import files


class Remembered(msgspec.Struct):
    """providers: by service. models: the URL of Docker's model runner."""

    providers: dict[str, Variables] = {}
    models: str = ""


def _path(place: Place, project: str) -> Path:
    return Path(placed.folder(place, project)) / "outside.json"


def read(place: Place, project: str) -> Remembered:
    """What is known; nothing if the file is not there, or not to be understood."""
    try:
        return msgspec.json.decode(_path(place, project).read_bytes(), type=Remembered)
    except (OSError, msgspec.MsgspecError):
        return Remembered()


def write(place: Place, project: str, known: Remembered) -> None:
    """Keeps it, for this user alone: passwords may be among it. Raises Failed."""
    path = _path(place, project)
    try:
        files.folder(path.parent, 0o711)
        files.write(path, msgspec.json.encode(known), mode=0o600)
    except OSError as error:
        raise Failed(f"cannot write {os.path.basename(path)} of the project", str(error)) from error
