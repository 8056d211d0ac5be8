"""Groups are folders: a plain folder stands in for the kernel's hierarchy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemel.errors import Failed
from gemel.host import cgroups


def test_version_1(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "pids"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpuacct").symlink_to("cpu")
    made = cgroups.make("gemel-x/one", root=tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in made] == [
        f"{name}/gemel-x/one/cgroup.procs" for name in ("cpu", "memory", "pids")
    ]
    cgroups.remove("gemel-x/one", root=tmp_path)
    cgroups.remove("gemel-x/one", root=tmp_path)
    assert not list(tmp_path.glob("*/gemel-x"))


def test_version_2_hands_controllers_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    for folder in (tmp_path, tmp_path / "gemel-x"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("")
    assert len(cgroups.make("gemel-x/one", root=tmp_path)) == 1
    assert (tmp_path / "gemel-x/cgroup.subtree_control").read_text() == "+pids"


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu")
    (tmp_path / "g/one").mkdir(parents=True)
    (tmp_path / "g/one/cpu.max").write_text("max 100000")
    cgroups.make("g/one", cpus=0.25, root=tmp_path)
    assert (tmp_path / "g/one/cpu.max").read_text() == "25000 100000"
    with pytest.raises(Failed, match="not available"):
        cgroups.make("g/two", cpus=1, root=tmp_path)
