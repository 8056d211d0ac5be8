"""What a build is given beside its context: secrets, keys, limits, further and remote contexts."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import http.server
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gemel.errors import Failed, InvalidInput, NotFound, Unavailable
from gemel.host import run
from gemel.image import inputs
from gemel.image.store import ImageStore
from tests.images import make_tar, stream
from tests.imagestore import busybox, free_port, make_store, unmount_all, wait_port

pytestmark = pytest.mark.root

SECRET = b"s3cret-" + os.urandom(8).hex().encode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = make_store(tmp_path)
    await store.prepare()
    await busybox(store, "base")
    yield store
    unmount_all(tmp_path)
    await store.close()


async def build(store: ImageStore, files: dict[str, bytes], **options: str) -> str:
    """The build's output."""
    found = [m async for m in store.build(stream(make_tar(files)), options)]
    return "".join(m.get("stream", "") for m in found)


def token(store: ImageStore, **secrets: bytes) -> str:
    texts = {id: base64.b64encode(data).decode() for id, data in secrets.items()}
    return store.keep_private(inputs.parse({"secrets": texts}))


def files_with(root: Path, wanted: bytes) -> list[Path]:
    """Files anywhere below that hold the bytes, also in gzip."""
    found = []
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if not path.stat().st_size:  # a pinned namespace, among others
                continue
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            if wanted in data:
                found.append(path)
    return found


async def test_secrets_are_seen_by_their_step_and_kept_nowhere(
    store: ImageStore, tmp_path: Path
) -> None:
    binary = b"\0" + SECRET + b"\xff"
    dockerfile = b"""\
        FROM base
        RUN --mount=type=secret,id=tok test -s /run/secrets/tok && cat /run/secrets/tok | wc -c
        RUN --mount=type=secret,id=bin,target=/b,mode=0444 stat -c 'mode %a' /b; wc -c < /b
        RUN ls /run/secrets; grep -c s3cret /proc/*/environ /proc/*/cmdline || echo nowhere
        """
    mark = token(store, tok=SECRET, bin=binary)
    text = await build(store, {"Dockerfile": dockerfile}, t="made", secrets=mark)
    assert f"\n{len(SECRET)}\n" in text and f"mode 444\n{len(binary)}\n" in text, text
    assert SECRET.decode() not in text
    image = store.find("made")
    assert SECRET.decode() not in json.dumps([step.created_by for step in image.history])
    root = await store.rootfs(image)
    assert not files_with(root, SECRET)
    assert not files_with(tmp_path, SECRET)
    with pytest.raises(InvalidInput, match="secrets of this build are not here"):
        await build(store, {"Dockerfile": b"FROM base"}, secrets=mark)


async def test_secrets_go_with_a_build_that_fails_or_is_killed(
    store: ImageStore, tmp_path: Path
) -> None:
    step = b"RUN --mount=type=secret,id=tok cat /run/secrets/tok > /taken; "
    failing = {"Dockerfile": b"FROM base\n" + step + b"exit 3\n"}
    with pytest.raises(Failed, match="returned a non-zero code: 3"):
        await build(store, failing, secrets=token(store, tok=SECRET))
    assert not files_with(tmp_path / "root/images/buildah", SECRET)
    assert not list((tmp_path / "root/images/buildah-unfinished").iterdir())
    step = b"RUN --mount=type=secret,id=tok cat /run/secrets/tok | wc -c; "
    sleeping = {"Dockerfile": b"FROM base\n" + step + b"echo started; sleep 1000\n"}
    messages = store.build(stream(make_tar(sleeping)), {"secrets": token(store, tok=SECRET)})
    async for message in messages:
        if message.get("stream") == "started\n":
            break
    await messages.aclose()  # type: ignore[attr-defined]
    assert not files_with(tmp_path, SECRET)
    assert list((tmp_path / "root/images/buildah-unfinished").iterdir())
    again = make_store(tmp_path)
    await again.prepare()
    assert not (tmp_path / "root/images/buildah").exists()
    assert not (tmp_path / "root/images/buildah-unfinished").exists()


async def test_limits_of_a_build_hold(store: ImageStore, tmp_path: Path) -> None:
    show = (
        b"FROM base\nRUN df -k /dev/shm | tail -1; ulimit -n;"
        b" grep Cpus_allowed_list /proc/self/status;"
        b" cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max;"
        b" cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max; true\n"
    )
    text = await build(
        store, {"Dockerfile": show}, shmsize=str(8 << 20), memory=str(96 << 20), cpuquota="50000",
        cpusetcpus="0", ulimits=json.dumps([{"Name": "nofile", "Soft": 77, "Hard": 88}]),
    )  # fmt: skip
    assert " 8192 " in text and "\n77\n" in text and "Cpus_allowed_list:\t0\n" in text, text
    assert f"\n{96 << 20}\n" in text and "\n50000" in text, text
    greedy = {"Dockerfile": b"FROM base\nRUN tail -c 200m /dev/zero\n"}
    with pytest.raises(Failed):
        await build(store, greedy, memory=str(64 << 20), memswap=str(64 << 20))
    for folder in Path("/sys/fs/cgroup").glob(f"*/{store.paths.cgroup}"):
        assert not list(folder.glob("build-*"))
    with pytest.raises(InvalidInput, match="Minimum memory limit"):
        await build(store, greedy, memory="1000")
    with pytest.raises(InvalidInput, match="cpusetcpus"):
        await build(store, greedy, cpusetcpus="all")


async def test_further_contexts(store: ImageStore) -> None:
    files = {
        "Dockerfile": b"FROM base\nCOPY --from=more a.txt /a\n"
        b"COPY --from=img /bin/sh /sh\nCOPY . /c",
        ".ctx/a.txt": b"from the further context",
    }
    places = {"more": "tar://.ctx", "img": "docker-image://base"}
    await build(store, files, t="made", contexts=json.dumps(places))
    root = await store.rootfs(store.find("made"))
    assert (root / "a").read_text() == "from the further context"
    assert (root / "sh").exists() and os.listdir(root / "c") == ["Dockerfile"]
    for place in ("tar://../x", "tar://nothing", "ftp://x/y", "/etc"):
        with pytest.raises(InvalidInput):
            await build(store, files, contexts=json.dumps({"more": place}))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address."""
    folder = tmp_path / "web"
    folder.mkdir()
    with web_of(folder) as url:
        yield folder, url


@contextlib.contextmanager
def web_of(folder: Path) -> Iterator[str]:
    """A web server of a folder; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


async def test_contexts_at_an_address(store: ImageStore, web: tuple[Path, str]) -> None:
    folder, url = web
    dockerfile = b"FROM base\nCOPY data /data\n"
    (folder / "ctx.tar.gz").write_bytes(
        gzip.compress(make_tar({"Dockerfile": dockerfile, "data": b"in the tar"}))
    )
    (folder / "Other").write_bytes(b"FROM base\nRUN echo alone > /data\n")
    (folder / "image.png").write_bytes(b"\x89PNG\0\0\0")
    await build(store, {}, t="tarred", remote=f"{url}/ctx.tar.gz")
    assert (await store.rootfs(store.find("tarred")) / "data").read_text() == "in the tar"
    await build(store, {}, t="alone", remote=f"{url}/Other", dockerfile="ignored")
    assert (await store.rootfs(store.find("alone")) / "data").read_text() == "alone\n"
    more = {"Dockerfile": b"FROM base\nCOPY --from=more data /more\n"}
    await build(store, more, t="more", contexts=json.dumps({"more": f"{url}/ctx.tar.gz"}))
    assert (await store.rootfs(store.find("more")) / "more").read_text() == "in the tar"
    with pytest.raises(InvalidInput, match="neither an archive nor a Dockerfile"):
        await build(store, {}, remote=f"{url}/image.png")
    with pytest.raises(NotFound, match="nothing at"):
        await build(store, {}, remote=f"{url}/none")
    with pytest.raises(Unavailable, match=r"cannot fetch http://127\.0\.0\.1:1/x"):
        await build(store, {}, remote="http://user:pass@127.0.0.1:1/x")
    with pytest.raises(InvalidInput, match="no address of a build context"):
        await build(store, {}, remote="file:///etc/passwd")


def git(folder: Path, *words: str) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder), *words]
    subprocess.run(command, check=True, env=env, capture_output=True)


async def test_a_git_repository_as_context(store: ImageStore, web: tuple[Path, str]) -> None:
    folder, url = web
    source = folder / "app"
    (source / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", "app")
    (source / "sub/Dockerfile").write_text("FROM base\nCOPY . /src\n")
    (source / "sub/version").write_text("one")
    (source / "out").symlink_to("/etc")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "one")
    git(source, "branch", "old")
    (source / "sub/version").write_text("two")
    git(source, "commit", "-q", "-am", "two")
    git(source, "update-server-info")  # a server of plain files
    source.joinpath(".git").rename(folder / "app.git")
    await build(store, {}, t="dumb", remote=f"{url}/app.git#old:sub")
    root = await store.rootfs(store.find("dumb"))
    assert sorted(os.listdir(root / "src")) == ["Dockerfile", "version"]
    assert (root / "src/version").read_text() == "one"
    port = free_port()
    (folder / "app.git/git-daemon-export-ok").touch()
    daemon = await run.spawn(
        ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={folder}"],
        new_session=True,
    )
    try:
        await wait_port(port)
        address = f"git://127.0.0.1:{port}/app.git"
        await build(store, {}, t="daemon", remote=f"{address}#:sub")
        root = await store.rootfs(store.find("daemon"))
        assert (root / "src/version").read_text() == "two"
        with pytest.raises(InvalidInput, match="leads out of the repository"):
            await build(store, {}, remote=f"{address}#main:out")
        with pytest.raises((Unavailable, NotFound)):
            await build(store, {}, remote=f"{address}#none")
        with pytest.raises(InvalidInput, match="no branch, tag or commit"):
            await build(store, {}, remote=f"{address}#--upload-pack=x")
    finally:
        os.killpg(daemon.pid, 9)
        await daemon.wait()
