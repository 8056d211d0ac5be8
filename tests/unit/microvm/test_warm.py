"""Which instances share a snapshot, and what a copy is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gemel.compose import warm as lint
from gemel.compose.project import Service
from gemel.model.instance import (
    GuestFile,
    InstanceSpec,
    Interface,
    Mount,
    MountKind,
    Network,
    Process,
    Resources,
    RuntimeName,
)
from gemel.runtime.microvm import disks, warm


def replica(folder: Path, number: int, **options: Any) -> InstanceSpec:
    """Of one service: all that is its own differs from one number to the other."""
    id = f"{number:064x}"
    files = []
    for target, text in (
        ("/etc/hosts", f"10.0.0.{number} host{number}"),
        ("/etc/hostname", f"host{number}"),
        ("/etc/resolv.conf", f"nameserver 10.0.0.{number}"),
        ("/run/secrets/key", "secret"),
    ):
        source = folder / id / target.rpartition("/")[2]
        source.parent.mkdir(exist_ok=True)
        source.write_text(text)
        files.append(GuestFile(target=target, source=source))
    nic = Interface(
        name="eth0",
        host=f"tap{number}",
        bridge="br0",
        mac=f"02:00:00:00:00:{number:02x}",
        address=f"10.0.0.{number}/24",
        gateway="10.0.0.1",
    )
    spec = InstanceSpec(
        id=id,
        name=f"web-{number}",
        runtime=RuntimeName.MICROVM,
        image_id="sha256:1",
        root_image=Path("/images/1.sqfs"),
        rootfs=None,
        layer=folder / id,
        process=Process(argv=("serve",), env=(f"HOSTNAME=host{number}", "A=1"), user="app"),
        hostname=f"host{number}",
        files=tuple(files),
        network=Network(interfaces=(nic,)),
        labels=(("gemel.snapshot", "warm"), ("com.docker.compose.project", "p")),
    )
    return msgspec.structs.replace(spec, **options)


def test_replicas_of_a_service_share_one(tmp_path: Path) -> None:
    assert warm.key(replica(tmp_path, 1)) == warm.key(replica(tmp_path, 2))


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "sha256:2"},
        {"process": Process(argv=("serve",), env=("HOSTNAME=host2", "A=2"), user="app")},
        {"process": Process(argv=("other",), env=("HOSTNAME=host2", "A=1"), user="app")},
        {"process": Process(argv=("serve",), env=("HOSTNAME=mine", "A=1"), user="app")},
        {"mounts": (Mount(kind=MountKind.TMPFS, target="/x"),)},
        {"resources": Resources(pids=5)},
        {"sysctls": (("net.core.somaxconn", "9"),)},
        {"labels": (("gemel.snapshot", "warm"), ("com.docker.compose.project", "q"))},
        {"network": Network()},
        {"init": True},
    ],
)
def test_what_differs_has_one_of_its_own(tmp_path: Path, change: dict[str, Any]) -> None:
    other = replica(tmp_path, 2, **change)
    assert warm.key(replica(tmp_path, 1)) != warm.key(other)


def test_a_secret_differs(tmp_path: Path) -> None:
    one, two = replica(tmp_path, 1), replica(tmp_path, 2)
    two.files[3].source.write_text("another")
    assert warm.key(one) != warm.key(two)


def test_a_copy_is_told_what_is_its_own(tmp_path: Path) -> None:
    spec = replica(tmp_path, 7)
    contents = {file.source: file.source.read_bytes() for file in spec.files}
    records = list(warm.identity_records(spec, contents))
    assert ("hostname", "host7", "") in records
    assert ("machine-id", spec.id[:32]) in records
    nic = ("nic", "02:00:00:00:00:07", "eth0", "10.0.0.7/24", "10.0.0.1", "1500", "1")
    assert nic in records
    assert [record[1] for record in records if record[0] == "file"] == list(warm.OWN_FILES)
    assert len(records) == 6
    hook = list(warm.hook_records(spec))
    assert ("arg", warm.HOOK) in hook and ("hook",) in hook and ("user", "app") in hook


def test_who_takes_no_part(tmp_path: Path) -> None:
    spec = replica(tmp_path, 1)
    assert warm.why_not(spec) is None
    bind = Mount(kind=MountKind.BIND, target="/x", source=tmp_path)
    assert "mounts" in (warm.why_not(replica(tmp_path, 1, mounts=(bind,))) or "")
    process = Process(argv=("sh",), tty=True)
    assert "terminal" in (warm.why_not(replica(tmp_path, 1, process=process)) or "")
    assert not warm.wanted(replica(tmp_path, 1, labels=()))


def test_a_disk_is_pristine_until_it_is_used(tmp_path: Path) -> None:
    assert not disks.is_pristine(tmp_path)
    (tmp_path / "pristine").touch()
    assert disks.is_pristine(tmp_path)
    disks.use(tmp_path)
    disks.use(tmp_path)
    assert not disks.is_pristine(tmp_path)


CHECK = {"test": ["CMD", "true"]}


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({}, [("x-gemel", "snapshot")]),
        ({"healthcheck": CHECK}, []),
        ({"healthcheck": {**CHECK, "disable": True}}, [("x-gemel", "snapshot")]),
        ({"healthcheck": CHECK, "tty": True}, [("tty",)]),
        (
            {"healthcheck": CHECK, "volumes": [{"type": "tmpfs"}, {"type": "bind"}]},
            [("volumes", 1)],
        ),
        ({"healthcheck": CHECK, "runtime": "crun"}, [("x-gemel", "snapshot")]),
        ({"healthcheck": CHECK, "runtime": "auto"}, []),
        ({"x-gemel": {"snapshot": "warm", "healthcheck": {"tcp": 80}}}, []),
        ({"x-gemel": {"snapshot": "off"}}, []),
    ],
)
def test_what_keeps_a_service_from_it(more: dict[str, Any], where: list[Any]) -> None:
    config = {"runtime": "microvm", "x-gemel": {"snapshot": "warm"}, **more}
    found = list(lint.obstacles(Service("web", config)))
    assert [path for path, _ in found] == where
