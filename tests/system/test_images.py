"""The image store against a real registry, skopeo, squashfs and mounts."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from gemel.errors import Conflict, Failed, InvalidInput, NotFound, Unavailable
from gemel.host import mounts, run
from gemel.image.store import ImageStore
from tests.images import make_tar, stream
from tests.imagestore import busybox, hostile, make_store, registry, statuses, unmount_all
from tests.imagestore import store as store

pytestmark = pytest.mark.root


async def test_import_mounts_what_the_archive_holds(store: ImageStore) -> None:
    image = await busybox(store)
    root = await store.rootfs(image)
    assert (root / "bin/sh").is_symlink()
    assert (root / "etc/passwd").read_text().startswith("root:x:0:0:")
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert (root / "home/app").stat().st_uid == 1000
    with pytest.raises(OSError):
        (root / "new").write_text("")
    result = await run.run(["chroot", str(root), "/bin/sh", "-c", "echo $((6*7))"])
    assert result.stdout == b"42\n"
    assert image.config.cmd == ["sh"]
    assert image.config.env == ["PATH=/bin"]


async def test_one_mount_per_image_found_again_by_a_new_engine(
    store: ImageStore, tmp_path: Path
) -> None:
    image = await busybox(store)
    first, second = await asyncio.gather(store.rootfs(image), store.rootfs(image))
    later = make_store(tmp_path)
    await later.prepare()
    third = await later.rootfs(later.find("busybox"))
    assert first == second == third
    table = Path("/proc/self/mountinfo").read_text()
    assert table.count(str(first)) == 1
    disk = str(later.disk(image))
    assert disk in loop_files()
    await later.release(image)
    assert not mounts.is_mount(first)
    await later.release(image)
    async with asyncio.timeout(30):  # the kernel frees the loop device a little later
        while disk in loop_files():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def loop_files() -> str:
    found = ""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found += path.read_text()
    return found


async def test_images_are_found_by_tag_id_and_prefix(store: ImageStore) -> None:
    image = await busybox(store, "Registry.local:5000/team/app", "v1")
    for ref in ("Registry.local:5000/team/app:v1", image.id, image.id[7:], image.id[7:19]):
        assert store.find(ref).id == image.id
    await store.tag(image.id[7:19], "shop", "2")
    assert store.find("docker.io/library/shop:2").tags == (
        "Registry.local:5000/team/app:v1",
        "docker.io/library/shop:2",
    )
    for ref, words in (
        ("nginx", "No such image: nginx:latest"),
        ("shop", "No such image: shop:latest"),
        ("Registry.local:5000/team/app", "No such image: Registry.local:5000/team/app:latest"),
        ("f" * 64, f"No such image: {'f' * 64}"),
    ):
        with pytest.raises(NotFound) as caught:
            store.find(ref)
        assert caught.value.brief == words


async def test_removing(tmp_path: Path) -> None:
    used: list[str] = []
    store = make_store(tmp_path, in_use=lambda _: used)
    await store.prepare()
    image = await busybox(store, "one")
    await store.tag("one", "two")
    assert await store.remove("two") == [{"Untagged": "two:latest"}]
    used.append("web-1")
    with pytest.raises(Conflict, match="container web-1 is using"):
        await store.remove("one")
    with pytest.raises(Conflict, match="cannot be forced"):
        await store.remove(image.id, force=True)
    disk = store.disk(image)
    assert disk.exists()
    used.clear()
    await store.rootfs(image)
    assert await store.remove("one") == [{"Untagged": "one:latest"}, {"Deleted": image.id}]
    assert not disk.exists()
    assert not list((tmp_path / "root/images/blobs/sha256").iterdir())
    assert not list((tmp_path / "run/images").iterdir())
    with pytest.raises(NotFound):
        store.find("one")


async def test_prune_takes_what_nobody_names_or_uses(tmp_path: Path) -> None:
    used: set[str] = set()
    store = make_store(tmp_path, in_use=lambda id: ["web-1"] if id in used else [])
    await store.prepare()
    first = await busybox(store, "app")
    second = await busybox(store, "app")
    assert store.find("app").id == second.id
    done = await store.prune()
    assert done.messages == [{"Deleted": first.id}]
    assert done.size > 0
    used.add(second.id)
    assert (await store.prune(dangling_only=False)).messages == []
    assert (await store.rootfs(second) / "bin/busybox").exists()
    unmount_all(tmp_path)


async def test_push_and_pull_keep_the_id_and_fetch_only_what_is_missing(
    store: ImageStore, tmp_path: Path
) -> None:
    async with registry(tmp_path / "registry") as host:
        image = await busybox(store, f"{host}/team/box", "v1")
        pushed = [m async for m in store.push(f"{host}/team/box:v1")]
        digest = pushed[-1]["aux"]["Digest"]
        assert pushed[-1]["aux"]["Tag"] == "v1"
        other = make_store(tmp_path / "other")
        await other.prepare()
        first = [m async for m in other.pull(f"{host}/team/box:v1")]
        texts = [m["status"] for m in first]
        assert texts[0] == f"Pulling from {host}/team/box"
        assert first[0]["id"] == "v1"
        assert {"Pulling fs layer", "Downloading", "Download complete", "Pull complete"} <= {*texts}
        assert texts[-2] == f"Digest: {digest}"
        assert texts[-1] == f"Status: Downloaded newer image for {host}/team/box:v1"
        again = await statuses(other.pull(f"{host}/team/box:v1"))
        assert again[-1] == f"Status: Image is up to date for {host}/team/box:v1"
        assert "Downloading" not in again
        pulled = other.find(f"{host}/team/box:v1")
        assert pulled.id == image.id
        assert pulled.config == image.config
        assert other.find(f"{host}/team/box@{digest}").id == image.id
        await other.remove(pulled.id)
        both = await asyncio.gather(
            *(statuses(other.pull(f"{host}/team/box@{digest}")) for _ in range(2))
        )
        assert sorted(text.count("Downloading") > 0 for text in both) == [False, True]


async def test_registry_with_a_password(store: ImageStore, tmp_path: Path) -> None:
    async with registry(tmp_path / "registry", password=True) as host:
        await busybox(store, f"{host}/box")
        good = {"username": "user", "password": "secret", "serveraddress": host}
        with pytest.raises((Failed, NotFound), match=r"authentication required|access denied"):
            await statuses(store.push(f"{host}/box"))
        await statuses(store.push(f"{host}/box", good))
        with pytest.raises(Failed, match="unauthorized: authentication required"):
            await statuses(store.pull(f"{host}/box", {**good, "password": "wrong"}))
        assert "up to date" in (await statuses(store.pull(f"{host}/box", good)))[-1]
        assert not list((tmp_path / "root/images/tmp").iterdir()), "credentials are left behind"


async def test_pull_says_what_is_wrong(store: ImageStore, tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        with pytest.raises(NotFound, match=f"manifest for {host}/none:v9 not found"):
            await statuses(store.pull(f"{host}/none:v9"))
    with pytest.raises(Unavailable, match=f"cannot reach the registry {host}") as caught:
        await statuses(store.pull(f"{host}/none:v9"))
    assert "refused" in caught.value.details
    with pytest.raises(InvalidInput, match="must be lowercase"):
        await statuses(store.pull("UPPER"))


async def test_pull_chooses_the_platform(store: ImageStore, tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        image = await busybox(store, f"{host}/box")
        await statuses(store.push(f"{host}/box"))
        await run.run(["skopeo", "copy", "--src-tls-verify=false",
                       f"docker://{host}/box", f"dir:{tmp_path}/dir"])  # fmt: skip
        single = (tmp_path / "dir/manifest.json").read_bytes()
        kind = json.loads(single)["mediaType"]
        index = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
                "manifests": [
                    {
                        "mediaType": kind,
                        "digest": "sha256:" + hashlib.sha256(single).hexdigest(),
                        "size": len(single),
                        "platform": {"architecture": "s390x", "os": "linux"},
                    }
                ],
            }
        ).encode()
        list_type = "application/vnd.docker.distribution.manifest.list.v2+json"
        await run.run(["curl", "-sSf", "-X", "PUT", "-H", f"Content-Type: {list_type}",
                       "--data-binary", "@-", f"http://{host}/v2/box/manifests/many"],
                      input=index)  # fmt: skip
        with pytest.raises(NotFound, match="no matching manifest for linux/amd64") as caught:
            await statuses(store.pull(f"{host}/box:many", platform="linux/amd64"))
        assert "linux/s390x" in caught.value.details
        await statuses(store.pull(f"{host}/box:many", platform="linux/s390x"))
        assert store.find(f"{host}/box:many").id == image.id


async def test_save_and_load_keep_all_digests(store: ImageStore, tmp_path: Path) -> None:
    await busybox(store, "first", "v1")
    await busybox(store, "second")
    data = b"".join([piece async for piece in store.save(["first:v1", "second"])])
    other = make_store(tmp_path / "other")
    await other.prepare()
    loaded = await statuses(other.load(stream(gzip.compress(data, 1))))
    assert "Loaded image: first:v1\n" in loaded
    assert "Loaded image: second:latest\n" in loaded
    for ref in ("first:v1", "second"):
        assert other.find(ref) == store.find(ref)
        assert other.record(other.find(ref)) == store.record(store.find(ref))
    archive = tmp_path / "saved.tar"
    archive.write_bytes(data)
    seen = await run.run(["skopeo", "inspect", "--raw", f"docker-archive:{archive}:first:v1"])
    assert json.loads(seen.stdout)["config"]["digest"] == store.find("first:v1").id


async def test_loads_what_skopeo_writes(store: ImageStore, tmp_path: Path) -> None:
    image = await busybox(store, "box")
    data = b"".join([piece async for piece in store.save(["box"])])
    (tmp_path / "box.tar").write_bytes(data)
    for kind in ("docker-archive", "oci-archive"):
        target = tmp_path / kind
        await run.run(
            ["skopeo", "copy", f"docker-archive:{tmp_path}/box.tar", f"{kind}:{target}:copy:1"]
        )
        other = make_store(tmp_path / f"{kind}-store")
        await other.prepare()
        await statuses(other.load(stream(target.read_bytes())))
        assert other.find("copy:1").diff_ids == image.diff_ids


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
async def test_layers_with_whiteouts_and_hard_links(
    store: ImageStore, tmp_path: Path, pack: Any
) -> None:
    def layer(*entries: tuple[str, bytes, str]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, kind, text in entries:
                entry = tarfile.TarInfo(name)
                entry.type = kind
                if kind == tarfile.REGTYPE:
                    entry.size = len(text)
                    tar.addfile(entry, io.BytesIO(text.encode()))
                else:
                    entry.linkname = text
                    tar.addfile(entry)
        return out.getvalue()

    file, folder, hard = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE
    layers = [
        layer(("d", folder, ""), ("d/gone", file, "x"), ("d/base", file, "content"),
              ("d/hard", hard, "d/base"), ("o", folder, ""), ("o/old", file, "x")),
        layer(("d/.wh.gone", file, ""), ("d/.wh.base", file, ""),
              ("o/new", file, "new"), ("o/.wh..wh..opq", file, "")),
    ]  # fmt: skip
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers",
                   "diff_ids": ["sha256:" + hashlib.sha256(each).hexdigest() for each in layers]},
    }).encode()  # fmt: skip
    entry = {"Config": "c.json", "RepoTags": ["w:1"], "Layers": ["1.tar", "2.tar"]}
    archive = {"manifest.json": json.dumps([entry]).encode(), "c.json": config}
    archive |= {"1.tar": pack(layers[0]), "2.tar": pack(layers[1])}
    await statuses(store.load(stream(make_tar(archive))))
    root = await store.rootfs(store.find("w:1"))
    assert sorted(os.listdir(root / "d")) == ["hard"]
    assert (root / "d/hard").read_text() == "content"
    assert os.listdir(root / "o") == ["new"]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file that no archive may touch."""
    path = tmp_path / "outside"
    path.write_text("untouched")
    yield path
    assert path.read_text() == "untouched"


@pytest.mark.parametrize(
    "archive",
    [
        hostile("../../outside"),
        hostile("a/../../outside"),
        hostile("x", tarfile.LNKTYPE, "../../../etc/passwd"),
        hostile("x", tarfile.LNKTYPE, "/etc/passwd"),
        hostile("x", tarfile.LNKTYPE, "missing"),
        hostile("big")[:1200],
        b"\x1f\x8b" + b"nonsense" * 100,
        b"no tar at all " * 100,
    ],
    ids=["up", "hidden-up", "link-up", "link-host", "link-none", "cut", "gzip", "text"],
)
async def test_hostile_archives_are_refused_and_leave_nothing(
    store: ImageStore, tmp_path: Path, outside: Path, archive: bytes
) -> None:
    with pytest.raises(InvalidInput):
        await statuses(store.import_tar(stream(archive), "evil"))
    assert store.images() == []
    for folder in ("tmp", "blobs/sha256", "squashfs"):
        assert not list((tmp_path / "root/images" / folder).iterdir())


async def test_absolute_names_devices_and_links_stay_inside(
    store: ImageStore, outside: Path
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link, data in (
            ("link", tarfile.SYMTYPE, str(outside.parent), b""),
            ("link/outside", tarfile.REGTYPE, "", b"contained"),
            (str(outside), tarfile.REGTYPE, "", b"absolute"),
            ("null", tarfile.CHRTYPE, "", b""),
        ):
            entry = tarfile.TarInfo("/" + name if name.startswith("/") else name)
            entry.name = name
            entry.type, entry.linkname, entry.size = kind, link, len(data)
            entry.devmajor, entry.devminor, entry.mode = 1, 3, 0o666
            tar.addfile(entry, io.BytesIO(data))
    await statuses(store.import_tar(stream(out.getvalue()), "odd"))
    root = await store.rootfs(store.find("odd"))
    assert (root / str(outside)[1:]).read_text() == "absolute"
    with pytest.raises(PermissionError):
        (root / "null").open("rb")


async def test_a_bomb_is_stopped(tmp_path: Path) -> None:
    from gemel.image.tarfmt import Limits

    store = make_store(tmp_path, limits=Limits(size=1 << 20, entries=100))
    await store.prepare()
    with pytest.raises(InvalidInput, match="holds more than 1 MiB"):
        await statuses(store.import_tar(stream(gzip.compress(bytes(50 << 20))), "bomb"))
    many = make_tar({f"f{number}": b"" for number in range(200)})
    with pytest.raises(InvalidInput, match="more than 100 entries"):
        await statuses(store.import_tar(stream(many), "bomb"))
    assert not list((tmp_path / "root/images/blobs/sha256").iterdir())


async def test_a_full_disk_is_told_and_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    small = tmp_path / "root"
    small.mkdir()
    mounts.mount("small", small, "tmpfs", data="size=12m")
    try:
        store = make_store(tmp_path)
        await store.prepare()
        image = await busybox(store, "kept")
        for size, words in ((5 << 20, "no space left"), (20 << 20, "holds more than")):
            noise = make_tar({"noise": os.urandom(size)})
            with pytest.raises((Failed, InvalidInput), match=words):
                await statuses(store.import_tar(stream(noise), "big"))
        assert [found.id for found in store.images()] == [image.id]
        assert not list((small / "images/tmp").iterdir())
        assert (await store.rootfs(image) / "bin/busybox").exists()
    finally:
        unmount_all(tmp_path)
        mounts.unmount(small)


async def test_a_pull_that_is_given_up_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        noise = make_tar({f"noise{number}": os.urandom(8 << 20) for number in range(3)})
        [_ async for _ in store.import_tar(stream(noise), f"{host}/big")]
        await statuses(store.push(f"{host}/big"))
        other = make_store(tmp_path / "other")
        await other.prepare()
        messages = other.pull(f"{host}/big")
        async for message in messages:
            if message["status"] == "Downloading":
                break
        await messages.aclose()  # type: ignore[attr-defined]
        assert other.images() == []
        for folder in ("tmp", "squashfs"):
            assert not list((tmp_path / "other/root/images" / folder).iterdir())
        for blob in (tmp_path / "other/root/images/blobs/sha256").iterdir():
            # what was whole by then stays for the next pull
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        await statuses(other.pull(f"{host}/big"))
        assert other.find(f"{host}/big").id == store.find(f"{host}/big").id
