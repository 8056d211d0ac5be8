"""What a guest boots from: kernel image, modules, initrd, command line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from gemel.errors import Failed, Unavailable
from gemel.runtime.microvm import artifacts, bzimage, cmdline, initrd, modules
from gemel.runtime.microvm.cmdline import kernel_command_line

KERNEL = b"\x7fELF" + b"code" * 500 + struct.pack("<III4s", 4, 4, 18, b"Xen\0")


def bz_image(payload: bytes, version: int = 0x20F) -> bytes:
    image = bytearray(1024 + 512)
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image[: 3 * 512]) + bytes(100) + payload + b"rest"


@pytest.mark.parametrize(
    "packed",
    [
        KERNEL,
        gzip.compress(KERNEL, mtime=0),
        lzma.compress(KERNEL),
        lzma.compress(KERNEL, format=lzma.FORMAT_ALONE),
        bz2.compress(KERNEL),
    ],
)
def test_a_kernel_comes_out_of_a_bzimage(packed: bytes) -> None:
    payload = bzimage.payload(bz_image(packed + struct.pack("<I", len(KERNEL))))
    assert bzimage.unpack(payload)[: len(KERNEL)] == KERNEL
    bzimage.check_elf(KERNEL)


@pytest.mark.parametrize(
    "image", [b"", b"MZ" * 1000, bz_image(KERNEL, 0x200), bz_image(KERNEL)[:1700]]
)
def test_what_is_no_bzimage_is_refused(image: bytes) -> None:
    with pytest.raises(Failed):
        bzimage.payload(image)


@pytest.mark.parametrize("packed", [b"", b"plain", lzma.compress(KERNEL)[:8] + b"junk" * 9])
def test_a_damaged_payload_is_refused(packed: bytes) -> None:
    with pytest.raises(Failed):
        bzimage.check_elf(bzimage.unpack(packed))


def test_zstd_and_lz4_name_their_programs() -> None:
    assert bzimage.program_for(bzimage.ZSTD + b"..") == ("zstd", "-dcq")
    assert bzimage.program_for(lzma.compress(b"x")) is None


def test_modules_come_after_what_they_need() -> None:
    known = {
        "a": b"ELF\0depends=b,c-d\0",
        "b": b"\0depends=\0softdep=pre: e post: f\0",
        "c_d": b"\0depends=b\0",
        "e": b"\0name=e\0",
    }
    assert list(modules.in_order(["a", "nope", "b"], known.get)) == ["e", "b", "c_d", "a"]


def test_some_modules_wait_until_they_are_asked_for() -> None:
    known = {
        "virtio_blk": b"\0depends=virtio\0",
        "virtio": b"\0depends=\0",
        "virtiofs": b"\0depends=fuse,virtio\0",
        "fuse": b"\0depends=\0",
    }
    rows = [(name, kind) for name, kind, _ in modules.plan(known.get)]
    assert rows == [
        ("virtio", ""),
        ("virtio_blk", ""),
        ("fuse", "virtiofs"),
        ("virtiofs", "virtiofs"),
    ]


def test_modules_that_need_each_other_end() -> None:
    known = {"a": b"\0depends=b\0", "b": b"\0depends=a\0"}
    assert sorted(modules.in_order(["a"], known.get)) == ["a", "b"]


def test_a_signature_is_taken_off_and_nothing_else() -> None:
    tail = struct.pack(">8xI", 5) + b"~Module signature appended~\n"
    assert modules.unsigned(b"module" + b"12345" + tail) == b"module"
    assert modules.unsigned(b"module") == b"module"
    lying = b"xx" + struct.pack(">8xI", 500) + tail[12:]
    assert modules.unsigned(lying) == lying


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    entries = initrd.contents(
        b"agent", b"busybox!", [("virtio", "", b"one"), ("ext4", "erofs", b"")]
    )
    archive = initrd.cpio(entries)
    assert archive == initrd.cpio(entries)
    assert len(archive) % 4 == 0
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed")
    (tmp_path / "x").mkdir()
    names = [entry.name for entry in entries if not stat.S_ISCHR(entry.mode)]
    subprocess.run(
        ["cpio", "-id", "--quiet", *names], cwd=tmp_path / "x", input=archive, check=True
    )
    assert (tmp_path / "x/init").read_bytes() == b"agent"
    assert (tmp_path / "x/init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "x/modules.list").read_text() == "virtio\next4 erofs\n"
    assert (tmp_path / "x/modules/virtio.ko").read_bytes() == b"one"


@pytest.mark.parametrize("size", [0, 1, 3300, 3900, 4095, 4096])
def test_an_archive_leaves_the_last_page_of_memory_alone(size: int) -> None:
    archive = initrd.cpio([initrd.program("init", b"x" * size)])
    assert len(archive) % 4096 == 0
    assert archive.rstrip(b"\0").endswith(b"TRAILER!!!")


def test_only_static_programs_are_taken() -> None:
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    load, interpreter = struct.pack("<I52x", 1), struct.pack("<I52x", 3)
    assert initrd.is_static(bytes(header) + load)
    assert not initrd.is_static(bytes(header) + interpreter)
    assert not initrd.is_static(bytes(header))
    assert not initrd.is_static(b"#!/bin/sh\n")


def test_the_command_line() -> None:
    emulated = kernel_command_line(False, 2_000_000).split()
    assert {"tsc_early_khz=2000000", "tsc=reliable", "mitigations=off", "quiet"} <= set(emulated)
    assert "panic=-1" in emulated
    assert [word for word in emulated if word.startswith("console=")] == ["console=hvc0"]
    real = kernel_command_line(True, 2_000_000, console=True, quiet=False).split()
    assert "console=ttyS0" in real
    assert not {"mitigations=off", "tsc=reliable", "quiet"} & set(real)
    assert not any("tsc" in word for word in real)


def test_what_is_not_built_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMEL_LIBEXEC", str(tmp_path))
    with pytest.raises(Unavailable, match="not built"):
        artifacts.find("no-such-part")
    (tmp_path / "part").write_text("")
    assert artifacts.find("part") == tmp_path / "part"


async def test_the_clock_has_one_rate_until_the_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "tsc-khz"
    told = [2_445_425, 2_445_426, 2_445_424, 3_000_000, 2_999_999, 0]

    async def measure() -> int | None:
        return told.pop(0) or None

    monkeypatch.setattr(cmdline, "measure_tsc_khz", measure)
    assert [await cmdline.tsc_khz(kept) for _ in range(6)] == [
        *[2_445_425] * 3,
        *[3_000_000] * 2,
        None,
    ]
    told[:] = [5, 6]
    kept.write_text("nonsense")
    assert await cmdline.tsc_khz(kept) == 5
    assert await cmdline.tsc_khz(tmp_path / "nowhere" / "else") == 6
