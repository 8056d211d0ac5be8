"""What the guest is told of an instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemel.errors import InvalidInput
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
    Security,
    Ulimit,
)
from gemel.runtime.microvm import setup
from gemel.runtime.microvm.protocol import MESSAGE_MAX


def spec(**fields: Any) -> InstanceSpec:
    whole: dict[str, Any] = {
        "id": "ab" * 32,
        "name": "web",
        "runtime": RuntimeName.MICROVM,
        "image_id": "sha256:0",
        "root_image": Path("/i/root.sqfs"),
        "rootfs": None,
        "layer": Path("/l"),
        "process": Process(argv=("run", "it")),
        "hostname": "web-1",
    }
    return InstanceSpec(**(whole | fields))


def test_config() -> None:
    one = spec(
        network=Network(
            interfaces=(
                Interface(
                    name="eth0",
                    host="tap",
                    bridge="br",
                    mac="02:00:00:00:00:01",
                    address="10.1.0.2/24",
                    gateway="10.1.0.1",
                ),
            )
        ),
        mounts=(
            Mount(kind=MountKind.BIND, target="/a/b/c", source=Path("/h/file"), readonly=True),
            Mount(kind=MountKind.BIND, target="/a", source=Path("/h/folder")),
            Mount(kind=MountKind.TMPFS, target="/t/t", size=4096, mode=0o700, options=("noexec",)),
        ),
        files=(GuestFile(target="/etc/hosts", source=Path("/s"), mode=0o640, uid=1, gid=2),),
        sysctls=(("net.core.somaxconn", "9"),),
        security=Security(readonly_rootfs=True),
    )
    kinds = {Path("/h/file"): False, Path("/h/folder"): True}
    records = list(setup.config_records(one, kinds, {Path("/s"): b"text"}))
    assert records[0] == ("hostname", "web-1", "")
    assert ("nic", "02:00:00:00:00:01", "eth0", "10.1.0.2/24", "10.1.0.1", "1500", "1") in records
    assert ("readonly-root",) in records
    mounts = [record for record in records if record[0] in ("mount", "bindfile")]
    assert mounts == [
        ("mount", "virtiofs", "share0", "/a", "0", ""),
        ("mount", "tmpfs", "tmpfs", "/t/t", "0", "noexec,size=4096,mode=700"),
        ("bindfile", "share2", "file", "/a/b/c", "1"),
    ]
    assert [(share.tag, share.name, share.readonly) for share in setup.shares(one, kinds)] == [
        ("share0", "", False),
        ("share2", "file", True),
    ]
    assert ("file", "/etc/hosts", "640", "1", "2", b"text") in records
    assert ("sysctl", "net.core.somaxconn", "9") in records


def test_start() -> None:
    one = spec(
        process=Process(
            argv=("a", "b"), env=("X=1",), user="u", groups=("g",), tty=True, stdin=True
        ),
        resources=Resources(
            memory=64 << 20, pids=9, ulimits=(Ulimit(name="core", soft=0, hard=1),)
        ),
        security=Security(no_new_privileges=True),
    )
    records = list(setup.start_records(one))
    for wanted in (
        *(("arg", "a"), ("arg", "b"), ("env", "X=1"), ("env", "HOSTNAME=web-1"), ("user", "u")),
        *(("group", "g"), ("tty", "0", "0"), ("stdin",), ("nnp",), ("rlimit", "core", "0", "1")),
        *(("pids", "9"), ("memory", str(64 << 20)), ("masked", "/proc/kcore")),
    ):
        assert wanted in records
    exec_records = list(setup.exec_records(one, Process(argv=("c",), env=("HOSTNAME=mine",))))
    assert not any(record[0] in ("memory", "masked", "pids") for record in exec_records)
    assert [record for record in exec_records if record[0] == "env"] == [("env", "HOSTNAME=mine")]


@pytest.mark.parametrize(
    ("security", "some", "none"),
    [
        (Security(), "CAP_CHOWN", "CAP_SYS_ADMIN"),
        (Security(cap_add=("sys_admin",)), "CAP_SYS_ADMIN", "CAP_SYS_BOOT"),
        (Security(cap_drop=("ALL",), cap_add=("CAP_KILL",)), "CAP_KILL", "CAP_CHOWN"),
        (Security(cap_add=("ALL",), cap_drop=("KILL",)), "CAP_SYS_BOOT", "CAP_KILL"),
    ],
)
def test_capabilities(security: Security, some: str, none: str) -> None:
    found = setup.capabilities(security, False)
    assert some in found and none not in found


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no capability FLY"):
        setup.capabilities(Security(cap_add=("FLY",)), False)
    huge = spec(process=Process(argv=("x" * (MESSAGE_MAX + 1),)))
    with pytest.raises(InvalidInput, match="more than 8 MiB"):
        setup.start_frames(huge)
