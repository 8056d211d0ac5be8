"""The toolbox's image, made once ahead of the tests, which have no way out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from gemel.host import files
from gemel.image import toolbox
from gemel.image.store import ImageStore
from gemel.model.paths import Paths


def _folder(cache: Path) -> Path:
    return cache / f"toolbox-{toolbox.reference().rpartition(':')[2]}"


async def prepare(cache: Path) -> None:
    """Makes it if it is missing, and says so. Needs root and Debian's mirror."""
    folder = _folder(cache)
    if folder.exists():
        return
    for old in cache.glob("toolbox-*"):
        files.remove(old)
    print("The toolbox of debug sessions (about a minute) …", flush=True)
    with tempfile.TemporaryDirectory(prefix=".toolbox-", dir=cache) as work:
        store = ImageStore(Paths(Path(work), Path(work) / "run"))
        await store.prepare()
        name, extra = toolbox.reference(), toolbox.extra()
        async for _ in store.bootstrap(name, packages=toolbox.PACKAGES, extra=extra):
            pass
        await store.close()
        (Path(work) / "images").rename(folder)


def add(cache: Path, target: Paths) -> None:
    """Gives it to an engine that does not run yet, beside the images that are there."""
    folder = _folder(cache)
    assert folder.is_dir(), f"no toolbox: run `python -m tests.prepare {cache}` first"
    for kind in ("blobs/sha256", "squashfs"):
        place = target.images / kind
        place.mkdir(parents=True, exist_ok=True)
        for file in (folder / kind).iterdir():
            if not (place / file.name).exists():
                try:
                    os.link(file, place / file.name)
                except OSError:  # another file system
                    shutil.copy2(file, place / file.name)
    index = target.images / "images.json"
    mine = json.loads((folder / "images.json").read_text())
    if index.exists():
        theirs = json.loads(index.read_text())
        mine["images"] += theirs["images"]
        mine["tags"] |= theirs["tags"]
        index.unlink()  # it may be a link to the cache's
    index.write_text(json.dumps(mine))
