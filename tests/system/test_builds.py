"""Builds by buildah and base images, for real."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemel.errors import Failed, InvalidInput, NotFound, Unavailable
from gemel.image.store import ImageStore
from tests.images import busybox_tar, make_tar, stream
from tests.imagestore import busybox, hostile, make_store, registry, statuses, unmount_all
from tests.imagestore import store as store

pytestmark = pytest.mark.root


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file that no archive may touch."""
    path = tmp_path / "outside"
    path.write_text("untouched")
    yield path
    assert path.read_text() == "untouched"


async def build(
    store: ImageStore, files: dict[str, bytes], auth: Any = None, **options: str
) -> list[dict[str, Any]]:
    return [m async for m in store.build(stream(make_tar(files)), options, auth)]


async def test_build_from_a_local_image(store: ImageStore, tmp_path: Path) -> None:
    base = await busybox(store, "base")
    files = {
        "Dockerfile": b"""\
            ARG FROM=nothing
            FROM ${FROM} AS tools
            RUN echo made > /made
            FROM ${FROM}
            ARG WHO=nobody
            COPY --from=tools /made /made
            COPY . /src
            RUN echo "hello $WHO" > /hello && chmod 4755 /hello
            HEALTHCHECK --interval=3s CMD true
            USER app
            CMD ["cat", "/hello"]
            """,
        "data.txt": b"data",
        "left.out": b"x",
        ".dockerignore": b"*.out\n",
    }
    options = {
        "t": "shop/web:v1,other",
        "buildargs": json.dumps({"FROM": "base", "WHO": "world", "EMPTY": None}),
        "labels": json.dumps({"com.example": "yes"}),
    }
    messages = await build(store, files, **options)
    text = "".join(m.get("stream", "") for m in messages)
    image = store.find("shop/web:v1")
    assert store.find("other").id == image.id
    assert messages[-4] == {"aux": {"ID": image.id}}
    assert messages[-3]["stream"] == f"Successfully built {image.id[7:19]}\n"
    assert messages[-2]["stream"] == "Successfully tagged shop/web:v1\n"
    assert "STEP 2/" in text
    root = await store.rootfs(image)
    assert (root / "hello").read_text() == "hello world\n"
    assert stat.S_IMODE((root / "hello").stat().st_mode) == 0o4755
    assert (root / "made").read_text() == "made\n"
    assert sorted(os.listdir(root / "src")) == [".dockerignore", "Dockerfile", "data.txt"]
    assert image.config.user == "app"
    assert image.config.cmd == ["cat", "/hello"]
    assert image.config.labels == {"com.example": "yes"}
    assert image.config.healthcheck and image.config.healthcheck.interval == 3_000_000_000
    assert image.diff_ids[0] == base.diff_ids[0]
    # nothing changed: the same image, every step from the cache
    again = await build(store, files, **options)
    assert {"aux": {"ID": image.id}} in again
    assert "Using cache" in "".join(m.get("stream", "") for m in again)
    # and an image that was just built is a base
    await build(store, {"Dockerfile": b"FROM shop/web:v1\nENV A=b\n"}, t="third")
    assert store.find("third").config.env == ["PATH=/bin", "A=b"]
    assert "buildah" not in Path("/proc/self/mountinfo").read_text()
    assert not list((tmp_path / "root/images/tmp").iterdir())


async def test_a_base_that_changed_is_used_anew(store: ImageStore) -> None:
    await busybox(store, "base")
    files = {"Dockerfile": b"FROM base\nRUN true\n"}
    await build(store, files, t="one")
    [_ async for _ in store.import_tar(stream(busybox_tar()), "base", changes=["ENV NEW=1"])]
    await build(store, files, t="two")
    assert "NEW=1" in (store.find("two").config.env or [])
    assert "NEW=1" not in (store.find("one").config.env or [])


async def test_a_failing_build_says_where_and_shows_its_last_lines(
    store: ImageStore, tmp_path: Path
) -> None:
    await busybox(store, "base")
    files = {"Dockerfile": b"FROM base\nRUN echo before; echo why >&2; exit 7\n"}
    with pytest.raises(
        Failed, match=r"^The command '/bin/sh -c echo before; .*' returned a non-zero code: 7\b"
    ) as caught:
        await build(store, files, t="bad")
    assert "before\nwhy\n" in caught.value.details
    left = tmp_path / "root/images/buildah/overlay-containers/containers.json"
    assert not left.exists() or json.loads(left.read_bytes()) == []
    assert len(store.images()) == 1
    assert not list((tmp_path / "root/images/tmp").iterdir())


async def test_build_refuses_what_cannot_be(store: ImageStore, outside: Path) -> None:
    await busybox(store, "base")
    with pytest.raises(InvalidInput, match="Cannot locate specified Dockerfile: Other"):
        await build(store, {"Dockerfile": b"FROM base"}, dockerfile="Other")
    with pytest.raises(InvalidInput, match="leads out of the build context"):
        await build(store, {"Dockerfile": b"FROM base"}, dockerfile="../../outside")
    with pytest.raises(InvalidInput, match="lowercase"):
        await build(store, {"Dockerfile": b"FROM base"}, t="UPPER")
    for archive in (
        hostile("../../outside"),
        hostile("x", tarfile.LNKTYPE, "../../../outside"),
        hostile("ok/below"),
    ):
        with pytest.raises(InvalidInput):
            [_ async for _ in store.build(stream(archive), {})]
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        for name, kind, target in (
            ("d", tarfile.SYMTYPE, str(outside.parent)),
            ("d/outside", tarfile.REGTYPE, ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
    with pytest.raises(InvalidInput, match="refused at 'd/outside'"):
        [_ async for _ in store.build(stream(link.getvalue()), {})]


async def test_build_pulls_its_base(store: ImageStore, tmp_path: Path) -> None:
    async with registry(tmp_path / "registry", password=True) as host:
        auth = {"username": "user", "password": "secret"}
        await busybox(store, f"{host}/box")
        await statuses(store.push(f"{host}/box", auth))
        await store.remove(f"{host}/box")
        files = {"Dockerfile": f"FROM {host}/box\nRUN echo 1 > /one\n".encode()}
        await build(store, files, {host: auth}, t="from-registry")
        root = await store.rootfs(store.find("from-registry"))
        assert (root / "one").read_text() == "1\n"
        text = "".join(
            str(m.get("status", m.get("stream")))
            for m in await build(store, files, {host: auth}, t="again", pull="1")
        )
        assert f"Status: Downloaded newer image for {host}/box:latest" in text
        again = await build(store, files, {host: auth}, t="again", pull="1")
        assert {"status": f"Status: Image is up to date for {host}/box:latest"} in again
        with pytest.raises(NotFound, match=f"manifest for {host}/none"):
            await build(store, {"Dockerfile": f"FROM {host}/none".encode()}, {host: auth})
    with pytest.raises(Unavailable, match="cannot reach the registry"):
        await build(store, {"Dockerfile": f"FROM {host}/none".encode()})


async def test_a_build_that_is_given_up_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    await busybox(store, "base")
    mark = f"4{os.getpid()}"
    files = {"Dockerfile": f"FROM base\nRUN echo started; sleep {mark}\n".encode()}
    messages = store.build(stream(make_tar(files)), {})
    async for message in messages:
        if message.get("stream") == "started\n":
            break
    await messages.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        while any(mark in line for line in command_lines()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not list((tmp_path / "root/images/tmp").iterdir())
    later = make_store(tmp_path)
    await later.prepare()
    left = tmp_path / "root/images/buildah/overlay-containers/containers.json"
    assert not left.exists() or json.loads(left.read_bytes()) == []


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


async def test_bootstrap_without_a_mirror_says_so(store: ImageStore, tmp_path: Path) -> None:
    """Tests run in a network namespace of their own, where there is no way out."""
    with pytest.raises(Unavailable, match="mirror cannot be reached"):
        await statuses(store.bootstrap("base", "bookworm", ["python3"]))
    assert store.images() == []
    assert not list((tmp_path / "root/images/tmp").iterdir())


async def test_steps_are_taken_from_a_registrys_cache(store: ImageStore, tmp_path: Path) -> None:
    files = {"Dockerfile": b"FROM base\nRUN od -N16 -tx1 /dev/urandom > /dice\n"}
    dice = []
    async with registry(tmp_path / "r", password=True) as host:
        auth = {host: {"username": "user", "password": "secret"}}
        cache = json.dumps([f"type=registry,ref={host}/shop/cache:main,mode=max"])
        for name in ("first", "second"):
            other = make_store(tmp_path / name)
            await other.prepare()
            same = other.import_tar(stream(busybox_tar()), "base", created="2020-01-01T00:00:00Z")
            assert await statuses(same)
            built = await build(other, files, auth, t="x", cachefrom=cache, cacheto=cache)
            assert not any("no effect" in m.get("stream", "") for m in built)
            dice.append((await other.rootfs(other.find("x")) / "dice").read_text())
            unmount_all(tmp_path / name)
        told = await build(
            store, {"Dockerfile": b"FROM scratch\nCOPY Dockerfile /\n"}, None,
            t="y", cachefrom=json.dumps(["some/image", "type=local,src=/x"]),
        )  # fmt: skip
    assert dice[0] == dice[1] and len(dice[0]) > 30
    lines = [m["stream"] for m in told if "no effect" in m.get("stream", "")]
    assert len(lines) == 2 and "some/image: an image is no cache" in lines[0]
    assert "type=local,src=/x: a cache is kept in a registry alone" in lines[1]


async def test_a_cache_that_is_not_reached_is_done_without_and_one_to_write_is_told(
    store: ImageStore, tmp_path: Path
) -> None:
    await busybox(store, "base")
    files = {"Dockerfile": b"FROM base\nRUN true\n"}
    nowhere = json.dumps(["type=registry,ref=127.0.0.1:1/shop/cache"])
    await build(store, files, t="x", cachefrom=nowhere)
    async with registry(tmp_path / "r", password=True) as host:
        here = json.dumps([f"type=registry,ref={host}/shop/cache"])
        with pytest.raises(Failed, match=f"cache cannot be sent to {host}/shop/cache") as caught:
            await build(store, files, t="x", cacheto=here, nocache="1")
        assert f"docker login {host}" in caught.value.resolution
