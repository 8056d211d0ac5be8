"""Building an own kernel, but for the building."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gemel.errors import Unavailable
from gemel.model.paths import Paths
from gemel.runtime.microvm import kernels, ownkernel
from gemel.runtime.microvm.ownkernel import Source

SOURCE = Source("linux-source-6.12", "6.12.117-1~deb12u1")
NEEDED = """
    SQUASHFS OVERLAY_FS EXT4_FS TMPFS FUSE_FS VIRTIO_FS VIRTIO_BLK VIRTIO_NET VIRTIO_CONSOLE
    VIRTIO_BALLOON PAGE_REPORTING VIRTIO_MMIO MEMCG CGROUP_PIDS CFS_BANDWIDTH SECCOMP_FILTER
    NF_TABLES HOTPLUG_PCI_PCIE COREDUMP USER_NS INET_DIAG
"""
PATHS = Paths(Path("/r"), Path("/run/r"))


def test_the_configuration_has_what_the_product_needs() -> None:
    have = ownkernel.settings(ownkernel.configuration())
    for name in NEEDED.split():
        assert have[f"CONFIG_{name}"] == "y", name
    assert have["CONFIG_MODULES"] == "n"
    assert have["CONFIG_HZ_250"] == "y"  # kernel_command_line reckons with it


def test_settings_of_a_configuration() -> None:
    text = '# a word\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_D=n\n\nCONFIG_=\n'
    assert ownkernel.settings(text) == {
        "CONFIG_A": "y",
        "CONFIG_B": "n",
        "CONFIG_C": '"x y"',
        "CONFIG_D": "n",
    }


def test_what_did_not_come_true_is_told() -> None:
    wanted = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_N=64\n"
    result = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=y\nCONFIG_N=32\nCONFIG_E=y\n"
    assert ownkernel.untrue(wanted, result) == [
        "CONFIG_B=y (it is n)",
        "CONFIG_D=n (it is y)",
        "CONFIG_N=64 (it is 32)",
    ]
    assert ownkernel.untrue(wanted, wanted) == []


def test_the_key_knows_source_and_settings_but_no_comments() -> None:
    base = ownkernel.key(SOURCE, "CONFIG_A=y\nCONFIG_B=n\n")
    assert ownkernel.key(SOURCE, "# why\nCONFIG_B=n\n\nCONFIG_A=y\n") == base
    assert ownkernel.key(SOURCE, "CONFIG_A=y\nCONFIG_B=y\n") != base
    newer = Source(SOURCE.package, "6.12.118-1~deb12u1")
    assert ownkernel.key(newer, "CONFIG_A=y\nCONFIG_B=n\n") != base


def test_the_folder_is_one_of_a_kernel() -> None:
    folder = ownkernel.folder_for(PATHS, SOURCE, "CONFIG_A=y\n")
    made = kernels.kernel_in(folder)
    assert made.own
    assert made.name == "gemel-6.12.117"
    assert made.version.startswith("6.12.117-1~deb12u1+c")
    assert kernels.folder_of(PATHS, made.name, made.version) == folder


def test_the_newest_source_is_taken() -> None:
    listing = (
        "linux-source-6.1 - Linux kernel source for version 6.1 with Debian patches\n"
        "linux-source-6.12 - Linux kernel source for version 6.12 with Debian patches\n"
        "linux-source-6.9 - Linux kernel source for version 6.9 with Debian patches\n"
    )
    assert ownkernel.newest(listing) == "linux-source-6.12"
    assert ownkernel.newest("linux-source - meta package\n") is None


def test_missing_programs_are_named_with_their_packages(tmp_path: Path) -> None:
    def there(program: str) -> str | None:
        return None if program in ("flex", "ld", "strip") else f"/usr/bin/{program}"

    with pytest.raises(Unavailable) as caught:
        ownkernel.check_tools(there, tmp_path / "gelf.h")
    assert caught.value.details == "ld, strip, flex, gelf.h"
    assert caught.value.resolution == "apt-get install binutils flex libelf-dev"
    (tmp_path / "gelf.h").touch()
    ownkernel.check_tools(lambda program: program, tmp_path / "gelf.h")


async def _candidate(progress: object) -> Source:
    return SOURCE


async def test_one_that_was_built_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    monkeypatch.setattr(ownkernel, "candidate", _candidate)
    folder = ownkernel.folder_for(paths, SOURCE, ownkernel.configuration())
    folder.mkdir(parents=True)
    told: list[str] = []
    made = await ownkernel.build(paths, told.append)
    assert made == kernels.kernel_in(folder)
    assert "before" in told[-1]


async def test_no_room_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    monkeypatch.setattr(ownkernel, "candidate", _candidate)
    monkeypatch.setattr(ownkernel, "check_tools", lambda: None)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(ownkernel.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Unavailable, match=r"2\.3 GB"):
        await ownkernel.build(paths, print)
    assert [path.name for path in paths.kernels.iterdir()] == []


async def test_a_build_that_fails_leaves_nothing_and_takes_away_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    left = paths.kernels / ".build-abc" / "tree"
    left.mkdir(parents=True)

    async def no_network(work: Path, package: str, version: str) -> Path:
        assert not left.exists()
        (work / "half").write_bytes(b"of it")
        raise Unavailable("the package cannot be fetched")

    monkeypatch.setattr(ownkernel, "candidate", _candidate)
    monkeypatch.setattr(ownkernel, "check_tools", lambda: None)
    monkeypatch.setattr(ownkernel, "_check_room", lambda folder: None)
    monkeypatch.setattr(ownkernel, "download", no_network)
    for _ in range(2):  # the lock was given back
        with pytest.raises(Unavailable, match="fetched"):
            await ownkernel.build(paths, print)
    assert [path.name for path in paths.kernels.iterdir()] == [".build.lock"]
