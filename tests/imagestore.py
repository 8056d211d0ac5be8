"""Help for tests of the image store: a store, a registry, archives that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gemel.host import mounts, run
from gemel.image.store import ImageStore
from gemel.model.image import Image
from gemel.model.paths import Paths
from tests.images import busybox_tar, stream

# user "user", password "secret"; bcrypt, the only kind that the registry takes
HTPASSWD = "user:$2b$04$Bqt6jCMwkBpnPkNxhqCLv.4ktsqumZBMLJYw.dG1w.ne1ZBwQ4GWq\n"


def make_store(root: Path, **options: Any) -> ImageStore:
    return ImageStore(Paths(root / "root", root / "run"), **options)


def unmount_all(root: Path) -> None:
    for target in (root / "run" / "images").glob("*"):
        mounts.unmount(target)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    """A store of a test's own; tests import it by its name."""
    store = make_store(tmp_path)
    await store.prepare()
    yield store
    unmount_all(tmp_path)
    await store.close()


async def busybox(store: ImageStore, repo: str = "busybox", tag: str = "") -> Image:
    messages = [
        m
        async for m in store.import_tar(
            stream(busybox_tar()), repo, tag, changes=['CMD ["sh"]', "ENV PATH=/bin"]
        )
    ]
    return store.find(messages[-1]["status"])


async def statuses(messages: AsyncIterator[dict[str, Any]]) -> list[str]:
    return [str(m.get("status", m.get("stream", ""))) async for m in messages]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_port(port: int, address: str = "127.0.0.1") -> None:
    async with asyncio.timeout(90):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def registry(folder: Path, *, password: bool = False) -> AsyncIterator[str]:
    """Debian's docker-registry on a free port of 127.0.0.1."""
    port = free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    process = await run.spawn(["docker-registry", "serve", str(folder / "config.yml")])
    try:
        await wait_port(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for each, type_, target, content in (("ok", tarfile.REGTYPE, "", b"ok"),
                                             (name, kind, link, data)):  # fmt: skip
            entry = tarfile.TarInfo(each)
            entry.type, entry.linkname = type_, target
            entry.size = len(content) if type_ == tarfile.REGTYPE else 0
            entry.devmajor, entry.devminor = 1, 3
            tar.addfile(entry, io.BytesIO(content) if entry.size else None)
    return out.getvalue()
