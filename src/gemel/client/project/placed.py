"""Files of a project that containers bind: the content of secrets and configs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from gemel.client.engine import Place
from gemel.compose.requests import PlacedFile
from gemel.errors import Failed
from gemel.host import files


def folder(place: Place, project: str) -> str:
    """Where a project's files lie: beside the engine's data, or the user's own state."""
    if os.geteuid() == 0:
        return os.path.join(place.root, "compose", project)
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "gemel", "compose", project)


def write(placed: Iterable[PlacedFile]) -> None:
    """Writes them whole, with owner and mode. Raises Failed (a full disk, no permission)."""
    for entry in placed:
        path = Path(entry.path)
        try:
            files.folder(path.parent, 0o711)
            files.write(path, entry.content, mode=entry.mode)
            if os.geteuid() == 0:
                os.chown(path, entry.uid, entry.gid)
        except OSError as error:
            raise Failed(f"cannot write {path.name} of the project", str(error)) from error


def remove(place: Place, project: str) -> None:
    """Removes all of a project's."""
    with contextlib.suppress(OSError):
        files.remove(Path(folder(place, project)))
