"""What suits the machine, and entries of lists that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from gemel.engine import suits
from gemel.engine.core import Core
from gemel.engine.listing import Listing
from gemel.engine.records import Container
from gemel.errors import InvalidInput, NotFound
from gemel.image.manifest import own_platform
from gemel.model.docker import CreateRequest, HostConfig, UlimitSpec
from gemel.model.image import Image
from gemel.model.instance import RuntimeName


@pytest.mark.parametrize("text", ["", "0", "0-0", "0,0", " 0 "])
def test_processors_that_are_there(text: str) -> None:
    suits.check_cpusets(HostConfig(cpuset_cpus=text, cpuset_mems=text))


@pytest.mark.parametrize(
    ("cpus", "mems", "words"),
    [
        ("x", "", "Invalid value x for cpuset cpus"),
        ("1-0", "", "Invalid value 1-0"),
        ("", "0,", "Invalid value 0, for cpuset mems"),
        ("0-99999", "", "Requested CPUs are not available - requested 0-99999"),
        ("", "4242", "Requested memory nodes are not available - requested 4242"),
    ],
)
def test_processors_that_are_not_there(cpus: str, mems: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        suits.check_cpusets(HostConfig(cpuset_cpus=cpus, cpuset_mems=mems))


def test_without_the_kernels_list_the_processors_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    online = {"cpus": ("CPUs", tmp_path / "none"), "mems": ("memory nodes", tmp_path / "none")}
    monkeypatch.setattr(suits, "_ONLINE", online)
    suits.check_cpusets(HostConfig(cpuset_cpus="0", cpuset_mems="0"))
    with pytest.raises(InvalidInput, match="available: 0"):
        suits.check_cpusets(HostConfig(cpuset_mems="1"))


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(oom_score_adj=-1001),
        HostConfig(oom_score_adj=5_000_000_000),
        HostConfig(shm_size=-1),
        HostConfig(memory=1 << 62),
        HostConfig(cpu_period=7),
        HostConfig(cpu_quota=7),
        HostConfig(cpu_quota=1 << 62),
        HostConfig(nano_cpus=1 << 62),
        HostConfig(nano_cpus=-1),
        HostConfig(pids_limit=1 << 62),
        HostConfig(ulimits=[UlimitSpec(name="x", soft=1, hard=1)]),
        HostConfig(ulimits=[UlimitSpec(name="core", soft=-7, hard=-6)]),
        HostConfig(cpuset_cpus="x"),
    ],
)
def test_limits_that_no_kernel_takes(host: HostConfig) -> None:
    with pytest.raises(InvalidInput):
        suits.check_limits(host)


def test_limits_that_every_kernel_takes() -> None:
    limits = [UlimitSpec(name="core", soft=-1, hard=-1), UlimitSpec(name="nofile", soft=1, hard=2)]
    suits.check_limits(
        HostConfig(
            oom_score_adj=1000,
            shm_size=1 << 30,
            memory=1 << 40,
            cpu_period=1000,
            cpu_quota=-1,
            nano_cpus=4_000_000_000,
            pids_limit=-1,
            ulimits=limits,
            memory_swap=-1,
        )
    )


def test_names_and_settings_of_the_kernel() -> None:
    def wanted(**more: Any) -> CreateRequest:
        sysctls = more.pop("sysctls", None)
        return CreateRequest(image="i", host_config=HostConfig(sysctls=sysctls), **more)

    suits.check_kernel(wanted(hostname="a" * 64, sysctls={"net.core.somaxconn": "1"}), True)
    suits.check_kernel(wanted(sysctls={"vm.swappiness": "1"}), False)
    for bad in (wanted(hostname="a" * 65), wanted(sysctls={"vm.swappiness": "1"})):
        with pytest.raises(InvalidInput):
            suits.check_kernel(bad, True)


def test_platforms() -> None:
    own = own_platform()
    mine = Image(id="a", architecture=own.architecture)
    other = Image(id="b", architecture="riscv64")
    assert suits.platform_warnings(mine, "i", "") == []
    assert suits.platform_warnings(other, "i", "linux/riscv64") == []
    (warning,) = suits.platform_warnings(other, "i", "")
    assert "(linux/riscv64) does not match the detected host platform" in warning
    with pytest.raises(NotFound, match=r"does not match the specified platform \(linux/riscv64\)"):
        suits.platform_warnings(mine, "i", "linux/riscv64")
    with pytest.raises(InvalidInput):
        suits.platform_warnings(mine, "i", "no such/thing")


class _Core:
    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.networks: dict[str, Any] = {}
        self.revisions: dict[str, int] = {}


def _one(id: str) -> Container:
    return Container(
        id=id, name=id, created="2026-01-01T00:00:00.000000000Z", argv=["a"],
        request=CreateRequest(image="i", host_config=HostConfig()), image_id="i", image_ref="i",
        runtime=RuntimeName.CONTAINER,
    )  # fmt: skip


def test_entries_of_lists_follow_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    core = _Core()
    listing = Listing(cast(Core, core))
    one = core.containers["one"] = _one("one")
    first = listing.entries([one])[0]
    assert first["State"] == "created"
    assert listing.entries([one])[0] == first
    one.name = "renamed"
    assert listing.entries([one])[0]["Names"] == ["/renamed"]
    one.state.status = "running"
    assert listing.entries([one])[0]["State"] == "running"
    one.request.labels = {"a": "b"}
    core.revisions["one"] = 1  # as after a save
    assert listing.entries([one])[0]["Labels"] == {"a": "b"}
    monkeypatch.setattr("gemel.engine.inspect.status_text", lambda one: "Up 3 hours")
    assert listing.entries([one])[0]["Status"] == "Up 3 hours"


def test_entries_of_what_has_gone_are_forgotten() -> None:
    core = _Core()
    listing = Listing(cast(Core, core))
    for number in range(100):
        listing.entries([_one(f"gone{number}")])
    assert len(listing._kept) <= 17
