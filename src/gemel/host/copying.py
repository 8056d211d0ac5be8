"""Copying a folder of an image out of its root, without ever following a link out of it."""

from __future__ import annotations

import os
from pathlib import Path

from gemel.host.run import run


def inside(root: Path, path: str) -> Path | None:
    """The place of ``path`` (absolute within ``root``), links resolved within the root.

    None if nothing is there, or if the links do not end. Pure but for lstat.
    """
    done: list[str] = []
    todo = [part for part in path.split("/") if part]
    for _ in range(255):
        if not todo:
            return root.joinpath(*done)
        part = todo.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        if part == ".":
            continue
        here = root.joinpath(*done, part)
        try:
            target = os.readlink(here)
        except OSError:
            if not os.path.lexists(here):
                return None
            done.append(part)
            continue
        if target.startswith("/"):
            done = []
        todo = [piece for piece in target.split("/") if piece] + todo
    return None


async def tree(root: Path, path: str, destination: Path, timeout: float = 300.0) -> None:
    """Copies what folder ``path`` of an image's root holds, and the folder's owner and mode.

    Owners, modes, times, hard links and extended attributes are kept; links are
    copied as links. Nothing is there: nothing is done. Raises Failed.
    """
    source = inside(root, path)
    if source is None or not source.is_dir():
        return
    facts = source.stat()
    os.chown(destination, facts.st_uid, facts.st_gid)
    os.chmod(destination, facts.st_mode & 0o7777)
    if any(os.scandir(source)):
        await run(["cp", "-a", "-T", "--", str(source), str(destination)], timeout=timeout)
