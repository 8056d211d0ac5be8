"""Which guest kernels are here, and which one is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemel.errors import Conflict, NotFound
from gemel.model.paths import Paths
from gemel.runtime.microvm import kernels
from gemel.runtime.microvm.kernel import ensure_kernel
from gemel.runtime.microvm.kernels import Kernel

CLOUD = "linux-image-6.1.0-56-cloud-amd64"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "root", tmp_path / "run")
    made.kernels.mkdir(parents=True)
    return made


def add(paths: Paths, name: str, version: str, age: int = 0) -> Kernel:
    folder = kernels.folder_of(paths, name, version)
    folder.mkdir()
    (folder / "vmlinux").write_bytes(b"kernel")
    os.utime(folder / "vmlinux", (1000 - age, 1000 - age))
    return kernels.kernel_in(folder)


def test_name_and_version_come_back_from_the_folder(paths: Paths) -> None:
    one = add(paths, CLOUD, "1:6.1.192-2~deb12u1+b1")
    assert (one.name, one.version, one.own) == (CLOUD, "1:6.1.192-2~deb12u1+b1", False)
    assert ":" not in one.vmlinux.parent.name
    assert add(paths, "gemel-6.12.117", "6.12.117-1+c0a1b2c3d").own


def test_nothing_is_chosen_at_first(paths: Paths) -> None:
    add(paths, CLOUD, "6.1")
    assert kernels.current(paths) is None


async def test_the_choice_lasts(paths: Paths) -> None:
    add(paths, CLOUD, "6.1")
    own = add(paths, "gemel-6.12.117", "6.12.117-1+c0a1b2c3d")
    kernels.choose(paths, own)
    assert kernels.current(paths) == own
    assert await ensure_kernel(paths, print) == own  # and nothing is fetched


@pytest.mark.parametrize("text", ["", "../../etc", f"{CLOUD}_6.1_1", "gone_1_3", "\xff"])
def test_a_choice_that_means_nothing_is_none(paths: Paths, text: str) -> None:
    add(paths, CLOUD, "6.1")
    (paths.kernels / "chosen").write_text(text, encoding="latin-1")
    assert kernels.current(paths) is None


def test_finding_by_name_beginning_and_default(paths: Paths) -> None:
    older = add(paths, CLOUD, "6.1.1", age=50)
    newer = add(paths, "linux-image-6.1.0-57-cloud-amd64", "6.1.2")
    own = add(paths, "gemel-6.12.117", "6.12.117-1+c0a1b2c3d", age=-10)
    assert kernels.find(paths, "gemel-6.12.117") == own
    assert kernels.find(paths, "gemel") == own
    assert kernels.find(paths, CLOUD) == older
    assert kernels.find(paths, "default") == newer


def test_one_name_in_two_versions_needs_the_version(paths: Paths) -> None:
    first = add(paths, "gemel-6.12.117", "6.12.117-1+c00000001")
    add(paths, "gemel-6.12.117", "6.12.117-1+c00000002")
    with pytest.raises(Conflict) as caught:
        kernels.find(paths, "gemel-6.12.117")
    assert "c00000001" in caught.value.details
    assert "c00000002" in caught.value.details
    assert kernels.find(paths, first.full_name) == first


@pytest.mark.parametrize("wanted", ["nothing", "", "default"])
def test_not_here_says_what_is(paths: Paths, wanted: str) -> None:
    add(paths, "gemel-6.12.117", "6.12.117-1+c00000001")
    with pytest.raises(NotFound) as caught:
        kernels.find(paths, wanted)
    assert "gemel kernel fetch" in caught.value.resolution
