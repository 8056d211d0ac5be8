"""What VMs that stand by are told."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gemel.runtime.microvm import rehearsal, standby
from gemel.runtime.microvm.machine import Disk, Machine, Share
from gemel.runtime.microvm.protocol import PAYLOAD_MAX, encode_records

MACHINE = Machine(
    qemu="/usr/bin/qemu",
    kvm=False,
    memory=256 << 20,
    cpus=1,
    kernel=Path("/k"),
    initrd=Path("/i"),
    command_line="quiet",
    disks=(Disk(Path("/secret/a"), "root"), Disk(Path("/secret/b"), "layer", writable=True)),
)


def test_disks_are_put_in_the_place_of_others() -> None:
    commands = [json.loads(line) for line in standby.adopt_commands(MACHINE)]
    *added, reopened = commands
    assert [one["execute"] for one in added] == ["blockdev-add"] * 2
    files = [one["arguments"] for one in added]
    assert [(one["filename"], one["read-only"]) for one in files] == [
        ("/dev/fdset/64", True),
        ("/dev/fdset/65", False),
    ]
    assert reopened["execute"] == "blockdev-reopen"
    options = reopened["arguments"]["options"]
    assert [(one["node-name"], one["read-only"], one["file"]) for one in options] == [
        ("disk0", True, files[0]["node-name"]),
        ("disk1", False, files[1]["node-name"]),
    ]
    assert "secret" not in str(commands)


def test_who_can_have_stood_by() -> None:
    assert standby.fits(MACHINE)
    share = Share("share0", Path("/data"))
    for change in ({"kvm": True}, {"shares": (share,)}, {"volumes": MACHINE.disks[1:]}):
        assert not standby.fits(msgspec.structs.replace(MACHINE, **change))


@pytest.mark.parametrize("nics", [0, 1, 20])
def test_a_rehearsal_is_one_frame(nics: int) -> None:
    records = rehearsal.records(nics)
    assert [key for key, *_ in records] == ["peer"] * (nics > 0) + ["config", "start"]
    assert len(encode_records(records)) < PAYLOAD_MAX - 1024
    assert encode_records(records).count(b"\3\0\0\0nic") == nics


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMEL_MICROVM_STANDBY", raising=False)
    assert standby.enabled()
    monkeypatch.setenv("GEMEL_MICROVM_STANDBY", "0")
    assert not standby.enabled()
