"""The images of the example shop: built once, ahead of the tests, which have no way out.

An image store of its own in the cache's folder holds them. Tests' engines get hard links.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from gemel.client import context
from gemel.host import files
from gemel.image.store import ImageStore
from gemel.model.paths import Paths
from tests.images import stream

SHOP = Path(__file__).parents[1] / "examples/shop"
BASE = "gemel/python"


def _builds() -> dict[str, Any]:
    """What the Compose file says of each service's build."""
    services = yaml.safe_load((SHOP / "compose.yaml").read_text())["services"]
    return {
        name: {"context": build} if isinstance(build := service["build"], str) else build
        for name, service in services.items()
    }


def _system() -> str:
    """The machine's Debian, which the base image is made from: ``12.5-x86_64``."""
    version = Path("/etc/debian_version").read_text().strip().replace("/", "-")
    return f"{version}-{os.uname().machine}"


def _key() -> str:
    """Of all that the images are made from."""
    digest = hashlib.sha256(json.dumps(_builds(), sort_keys=True).encode())
    for path in sorted(SHOP.rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".md", ".yaml"):
            digest.update(f"{path.relative_to(SHOP)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _places(cache: Path) -> tuple[Paths, Path]:
    """The store's folders, and the file that says what was built."""
    folder = cache / f"shop-{_system()}"
    return Paths(folder, folder / "run"), folder / "built"


async def prepare(cache: Path) -> None:
    """Builds what is missing or has changed, and says so. Needs root and Debian's mirror.

    Nothing stays mounted and nothing runs on: buildah and mmdebstrap work in mount
    namespaces of their own.
    """
    paths, built = _places(cache)
    key = _key()
    if built.exists() and built.read_text() == key:
        return
    for old in cache.glob("shop-*"):
        if old != paths.root:
            files.remove(old)
    begun = time.monotonic()
    store = ImageStore(paths)
    await store.prepare()
    try:
        if not any(BASE in tag for tag in store.tags):
            print("A base image from Debian's packages (about half a minute) …", flush=True)
            await _finish(store.bootstrap(BASE, packages=["python3"]))
        print("The example shop's images (about a minute) …", flush=True)
        async with asyncio.TaskGroup() as group:
            for name, build in _builds().items():
                group.create_task(_build(store, name, build, begun))
        await store.prune_builds()
        await store.prune()  # what was built before
    finally:
        await store.close()
    files.write(built, key)


async def _build(store: ImageStore, name: str, build: Any, begun: float) -> None:
    dockerfile = build.get("dockerfile", "Dockerfile")
    tar = b"".join(context.tar(str(SHOP / build["context"]), dockerfile))
    await _finish(store.build(stream(tar), {"t": f"shop/{name}", "dockerfile": dockerfile}))
    print(f"  shop/{name} ({time.monotonic() - begun:.0f} s)", flush=True)


async def _finish(messages: AsyncIterator[dict[str, Any]]) -> None:
    async for _ in messages:
        pass


def link(cache: Path, target: Paths) -> None:
    """Gives an engine that does not run yet the shop's images: hard links, no copies."""
    paths, built = _places(cache)
    assert built.exists() and built.read_text() == _key(), (
        f"the shop's images are not built: run `python -m tests.prepare {cache}` first"
    )

    def copy(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:  # another file system
            shutil.copy2(source, destination)

    shutil.copytree(paths.images, target.images, copy_function=copy)
