"""Files in and out (docker cp), running or not, and never past the instance's own root."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gemel.errors import Conflict, Failed, InvalidInput, NotFound
from gemel.model.instance import InstanceSpec, Mount, MountKind, Security
from tests.conformance.conftest import Harness

pytestmark = pytest.mark.root


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def packed(*entries: tuple[str, object]) -> bytes:
    """A tar: bytes are files, None folders, other values TarInfo fields."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, value in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(value, bytes):
                entry.size, entry.mode, entry.uid, entry.gid = len(value), 0o640, 1000, 2000
                tar.addfile(entry, io.BytesIO(value))
                continue
            entry.type, entry.mode = tarfile.DIRTYPE, 0o750
            for field, content in (value or {}).items():  # type: ignore[attr-defined]
                setattr(entry, field, content)
            tar.addfile(entry)
    return out.getvalue()


async def taken(harness: Harness, spec: InstanceSpec, path: str, running: bool) -> dict[str, bytes]:
    """Names and contents of what ``docker cp`` takes out."""
    data = b"".join([p async for p in harness.runtime.read_archive(spec, path, running)])
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            found[entry.name] = file.read() if file else entry.linkname.encode()
    return found


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_both_ways(harness: Harness, running: bool) -> None:
    spec = harness.spec("sleep", "1000")
    if running:
        await harness.start(spec)
    else:
        harness.specs[spec.id] = spec
        await harness.runtime.create(spec)
    big = os.urandom(2 << 20)
    tar = packed(
        ("data", None),
        ("data/big", big),
        ("data/empty", b""),
        ("data/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("data/hard", {"type": tarfile.LNKTYPE, "linkname": "data/big"}),
        ("data/überlang-" + "n" * 150, b"x"),
    )
    await harness.runtime.write_archive(spec, "/tmp", pieces(tar), running)
    found = await taken(harness, spec, "/tmp/data", running)
    # of two names of a file, the one that comes second is a link to the first
    assert big in (found["data/big"], found["data/hard"]) and found["data/empty"] == b""
    assert found["data/big"] in (big, b"data/hard")
    assert found["data/link"] == b"/etc/passwd"
    assert found["data/hard"] in (b"data/big", big)
    assert found["data/überlang-" + "n" * 150] == b"x"
    assert set(found) == {
        "data",
        "data/big",
        "data/empty",
        "data/link",
        "data/hard",
        "data/überlang-" + "n" * 150,
    }
    assert await taken(harness, spec, "/etc/passwd", running) == {
        "passwd": (harness.image.folder / "etc/passwd").read_bytes()
    }
    facts = await harness.runtime.stat_path(spec, "/tmp/data/empty", running)
    assert (facts.name, facts.size, stat.S_IMODE(facts.mode)) == ("empty", 0, 0o640)
    facts = await harness.runtime.stat_path(spec, "/tmp/data/link", running)
    assert stat.S_ISLNK(facts.mode) and facts.link_target == "/etc/passwd"
    assert stat.S_ISDIR((await harness.runtime.stat_path(spec, "/", running)).mode)
    if not running:
        await harness.start(spec)
    got = await harness.exec(spec, "stat", "-c", "%u:%g %a", "/tmp/data/big", "/tmp/data")
    assert got.stdout == b"1000:2000 640\n0:0 750\n"
    assert (await harness.exec(spec, "sha256sum", "/tmp/data/big")).status == 0

    for path in ("/no/such", "/etc/passwd/x"):
        with pytest.raises(NotFound):
            await harness.runtime.stat_path(spec, path, True)
        with pytest.raises(NotFound):
            await taken(harness, spec, path, True)
        with pytest.raises((NotFound, InvalidInput)):
            await harness.runtime.write_archive(spec, path, pieces(tar), True)
    with pytest.raises(InvalidInput):
        await harness.runtime.write_archive(spec, "/etc/passwd", pieces(tar), True)
    with pytest.raises(InvalidInput):
        await harness.runtime.write_archive(spec, "/tmp", pieces(b"no tar" * 1000), True)


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_links_do_not_lead_out(harness: Harness, tmp_path: Path, running: bool) -> None:
    """Links that would leave the root on the host are followed inside it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"of the host")
    spec = harness.spec("sleep", "1000")
    await harness.start(spec)
    script = f"mkdir -p {outside}; ln -s {outside} /esc; ln -s ../../../../../../{outside} /up"
    assert (await harness.exec(spec, "sh", "-c", script)).status == 0
    if not running:
        await harness.stop(spec)
    for link in ("/esc", "/up"):
        with pytest.raises(NotFound):
            await taken(harness, spec, f"{link}/secret", running)
        await harness.runtime.write_archive(
            spec, f"{link}/", pieces(packed(("planted", b"x"))), running
        )
        found = await taken(harness, spec, f"{outside}/planted", running)
        assert found == {"planted": b"x"}
        # an entry below a link that the archive itself makes
        sly = packed(
            ("sly", {"type": tarfile.SYMTYPE, "linkname": str(outside)}), ("sly/deep", b"x")
        )
        with contextlib.suppress(
            *(() if harness.runtime.capabilities.shares_kernel else (Failed,))
        ):
            await harness.runtime.write_archive(spec, "/tmp", pieces(sly), running)
    for name in ("../above", "a/../../above"):
        with pytest.raises(InvalidInput):
            await harness.runtime.write_archive(spec, "/tmp", pieces(packed((name, b"x"))), running)
    assert os.listdir(outside) == ["secret"]


async def test_readonly_root_and_volumes(harness: Harness, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    spec = harness.spec(
        "sleep",
        "1000",
        security=Security(readonly_rootfs=True),
        mounts=(Mount(kind=MountKind.BIND, target="/data/in it", source=volume),),
    )
    await harness.start(spec)
    for running in (True, False):
        if not running:
            await harness.stop(spec)
        with pytest.raises(Conflict):
            await harness.runtime.write_archive(spec, "/tmp", pieces(packed(("x", b"1"))), running)
        name = f"made-{running}"
        await harness.runtime.write_archive(
            spec, "/data/in it", pieces(packed((name, b"1"))), running
        )
        assert (volume / name).read_bytes() == b"1"
        assert await taken(harness, spec, f"/data/in it/{name}", running) == {name: b"1"}
    assert str(harness.paths.run / "views") not in Path("/proc/self/mountinfo").read_text()


async def test_a_reader_that_goes_away(harness: Harness) -> None:
    spec = harness.spec("sleep", "1000")
    harness.specs[spec.id] = spec
    await harness.runtime.create(spec)
    big = packed(("big", bytes(8 << 20)))
    await harness.runtime.write_archive(spec, "/tmp", pieces(big), False)
    source = harness.runtime.read_archive(spec, "/tmp/big", False)
    assert await anext(source)
    await source.aclose()  # type: ignore[attr-defined]

    async def breaks() -> AsyncIterator[bytes]:
        yield big[: 1 << 20]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await harness.runtime.write_archive(spec, "/tmp", breaks(), False)
    assert str(harness.paths.run) not in Path("/proc/self/mountinfo").read_text()


async def test_the_whole_root_of_what_runs(harness: Harness) -> None:
    changing = "while :; do mkdir -p /tmp/d/e; rmdir /tmp/d/e; ln -sf /x /tmp/l; rm /tmp/l; done"
    spec = await harness.start(harness.shell(f"echo kept > /tmp/kept; echo on; {changing}"))
    await harness.expect(spec, b"on")
    for _ in range(5):
        found = await taken(harness, spec, "/", True)
        assert {name.removeprefix("./"): content for name, content in found.items()}[
            "tmp/kept"
        ] == b"kept\n"
        # as with dockerd: what the kernel shows there is not copied
        shown = ("proc/", "sys/", "dev/")
        assert not [name for name in found if name.removeprefix("./").startswith(shown)]
