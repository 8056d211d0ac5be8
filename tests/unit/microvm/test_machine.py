"""QEMU's command line and the relay's orders, word for word."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gemel.errors import InvalidInput
from gemel.runtime.microvm import build, slots
from gemel.runtime.microvm.machine import (
    MIB,
    OVERHEAD,
    Disk,
    FileServer,
    Job,
    Machine,
    Nic,
    Share,
    file_server_arguments,
    guest_cpus,
    guest_memory,
    plug_commands,
    qemu_arguments,
    relay_records,
    why_no_clone,
)

PLAIN = Machine(
    qemu="/usr/bin/qemu-system-x86_64",
    kvm=False,
    memory=256 * MIB,
    cpus=1,
    kernel=Path("/k/vmlinux"),
    initrd=Path("/k/initrd"),
    command_line="quiet rdinit=/init",
    disks=(Disk(Path("/i/root.sqfs"), "root"), Disk(Path("/l/disk.ext4"), "layer", True)),
    nics=(Nic("gtap0", "02:00:00:00:00:05"),),
)
SHARING = msgspec.structs.replace(
    PLAIN, shares=(Share("share0", Path("/v/data")), Share("share1", Path("/etc/x"), "x", True))
)


def test_arguments() -> None:
    assert " ".join(qemu_arguments(PLAIN)) == (
        "/usr/bin/qemu-system-x86_64 "
        "-M microvm,acpi=on,pcie=off,rtc=on,isa-serial=off,usb=off "
        "-nodefaults -no-user-config -no-reboot -display none "
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "
        "-cpu max,-erms,-fsrm -accel tcg,thread=multi,tb-size=128 -smp 1 -m 256M "
        "-kernel /kernel -initrd /initrd -append quiet rdinit=/init "
        "-global virtio-mmio.force-legacy=false "
        "-add-fd fd=4,set=0 -blockdev driver=raw,node-name=disk0,read-only=on,discard=ignore,"
        "file.driver=file,file.filename=/dev/fdset/0,file.locking=off "
        "-device virtio-blk-device,drive=disk0,serial=root "
        "-add-fd fd=5,set=1 -blockdev driver=raw,node-name=disk1,read-only=off,discard=unmap,"
        "file.driver=file,file.filename=/dev/fdset/1,file.locking=off "
        "-device virtio-blk-device,drive=disk1,serial=layer "
        "-netdev tap,id=net0,fd=16,vhost=off "
        "-device virtio-net-device,netdev=net0,mac=02:00:00:00:00:05 "
        "-device virtio-serial-device -chardev socket,id=agent,fd=3 "
        "-device virtserialport,chardev=agent,name=gemel.agent "
        "-add-fd fd=14,set=14 -chardev file,id=console,path=/dev/fdset/14,append=on "
        "-device virtconsole,chardev=console "
        "-device virtio-balloon-device,free-page-reporting=on"
    )


def test_shares_need_shared_memory() -> None:
    words = " ".join(qemu_arguments(SHARING))
    assert "-object memory-backend-memfd,id=ram,size=256M,share=on" in words
    assert "-chardev socket,id=share1,fd=65" in words
    assert "memfd" not in " ".join(qemu_arguments(PLAIN))


def test_nothing_of_the_host_is_in_the_arguments() -> None:
    words = " ".join(qemu_arguments(SHARING)[1:])
    for secret in ("/i/root", "/l/disk", "gtap0", "/v/data", "/etc/x", "/k/"):
        assert secret not in words


def test_too_many_devices_are_refused_with_numbers() -> None:
    many = tuple(Share(f"share{n}", Path("/x")) for n in range(21))
    with pytest.raises(InvalidInput, match="this one needs 26") as caught:
        qemu_arguments(msgspec.structs.replace(PLAIN, shares=many))
    assert "21 bind mounts" in caught.value.details


def test_templates_and_clones_differ_in_their_memory_alone() -> None:
    saved = qemu_arguments(PLAIN, snapshot="save")
    restored = qemu_arguments(PLAIN, snapshot="restore")
    assert restored[-2:] == ["-incoming", "defer"]
    assert [word.replace("share=off", "share=on") for word in restored[:-2]] == saved
    assert "share=off" in " ".join(restored)


def test_a_clone_gets_its_shares_when_it_runs() -> None:
    saved = " ".join(qemu_arguments(PLAIN, snapshot="save"))
    restored = " ".join(qemu_arguments(SHARING, snapshot="restore"))
    assert "vhost-user-fs" not in restored
    # the file servers map its memory too
    assert "mem-path=/proc/self/fd/12,share=on" in restored
    # what the template has comes first and is the same
    devices = saved[saved.index("-add-fd") : saved.index("-device virtio-serial")]
    assert devices in restored
    commands = [json.loads(line) for line in plug_commands(SHARING)]
    added = [c["arguments"] for c in commands if c["execute"] == "device_add"]
    assert [(one["bus"], one["chardev"], one["tag"]) for one in added] == [
        ("virtio-mmio-bus.1", "share0", "share0"),
        ("virtio-mmio-bus.2", "share1", "share1"),
    ]
    handlers = [c["arguments"]["path"] for c in commands if c["execute"] == "qom-set"]
    assert handlers == ["virtio-mmio-bus.1", "virtio-mmio-bus.2"]


def test_block_volumes_are_disks_of_one_vm_that_a_clone_gets_later() -> None:
    volume = Disk(Path("/v/data/disk.ext4"), "volume0", True)
    machine = msgspec.structs.replace(SHARING, volumes=(volume,))
    cold = " ".join(qemu_arguments(machine))
    assert "virtio-blk-device,drive=disk2,serial=volume0" in cold
    restored = " ".join(qemu_arguments(machine, snapshot="restore"))
    assert "node-name=disk2" in restored and "volume0" not in restored
    added = json.loads(list(plug_commands(machine))[-1])["arguments"]
    assert (added["drive"], added["serial"], added["bus"]) == (
        *("disk2", "volume0"),
        "virtio-mmio-bus.3",
    )
    # without file servers the template's memory is shared, copy-on-write
    alone = msgspec.structs.replace(PLAIN, volumes=(volume,))
    assert "share=off" in " ".join(qemu_arguments(alone, snapshot="restore"))
    with pytest.raises(InvalidInput, match="no room for 7 block volumes"):
        qemu_arguments(msgspec.structs.replace(PLAIN, volumes=(volume,) * 7))


@pytest.mark.parametrize(
    ("shares", "nics", "word"), [(0, 20, ""), (12, 7, ""), (13, 0, "more than 12"), (1, 20, "room")]
)
def test_which_machines_can_be_clones(shares: int, nics: int, word: str) -> None:
    machine = msgspec.structs.replace(
        PLAIN,
        shares=tuple(Share(f"share{n}", Path("/x")) for n in range(shares)),
        nics=tuple(Nic(f"t{n}", "02:00:00:00:00:05") for n in range(nics)),
    )
    reason = why_no_clone(machine)
    assert (reason is None) if not word else word in str(reason)


def test_the_table_of_the_spare_slots() -> None:
    table = slots.table()
    assert table[:4] == b"SSDT"
    assert int.from_bytes(table[4:8], "little") == len(table)
    assert sum(table) % 256 == 0
    assert table.count(b"LNRO0005\0") == slots.SPARE
    # a window of memory and an interrupt for each
    assert table.count(b"\x86\x09\x00\x01" + (0xFEB00200).to_bytes(4, "little")) == 1
    assert b"\x89\x06\x00\x01\x01\x19\0\0\0" in table


def test_orders() -> None:
    job = Job(
        folder=Path("/run/x"),
        log=Path("/log"),
        user=7,
        cgroups=(Path("/cg/cgroup.procs"),),
        config=b"C",
        start=b"S",
        file_server=FileServer("/usr/lib/qemu/virtiofsd", False, 999),
    )
    records = list(relay_records(SHARING, job))
    assert ("disk", "4", "/i/root.sqfs", "ro") in records
    assert ("disk", "5", "/l/disk.ext4", "rw") in records
    assert ("tap", "16", "gtap0") in records
    assert ("bind", "/k/vmlinux", "kernel") in records
    shares = [record for record in records if record[0] == "share"]
    assert shares[1][:5] == ("share", "65", "/etc/x", "x", "ro")
    assert "source=/run/x/share-1" in shares[1]
    assert not any(record[0] == "bind" and "kvm" in str(record) for record in records)
    with pytest.raises(InvalidInput):
        list(relay_records(SHARING, msgspec.structs.replace(job, file_server=None)))


def test_file_servers() -> None:
    c = file_server_arguments(FileServer("/v", False, 20), Path("/s"))
    rust = file_server_arguments(FileServer("/v", True, 20), Path("/s"))
    assert c == [
        *("/v", "--fd=3", "--rlimit-nofile=20", "-o", "source=/s"),
        *("-o", "cache=auto,sandbox=namespace,xattr"),
    ]
    assert "--shared-dir=/s" in rust and "--sandbox=namespace" in rust


@pytest.mark.parametrize(
    ("limit", "kvm", "wanted"),
    [
        (None, False, 256 * MIB),
        (0, True, 512 * MIB),
        (6 * MIB, False, 88 * MIB),
        (100 * MIB + 1, True, 184 * MIB),
    ],
)
def test_memory(limit: int | None, kvm: bool, wanted: int) -> None:
    assert guest_memory(limit, kvm) == wanted
    assert not limit or wanted >= limit + OVERHEAD


def test_cpus() -> None:
    assert guest_cpus(4, False, 8) == 1
    assert guest_cpus(1.5, True, 8) == 2
    assert guest_cpus(None, True, 8) == 8
    assert guest_cpus(99, True, 8) == 8


def test_a_guest_bigger_than_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.memfile, "total", lambda: 1024 * MIB)
    build._check_memory(1024 * MIB)
    with pytest.raises(InvalidInput, match="1028 MiB does not fit a machine of 1024 MiB"):
        build._check_memory(1028 * MIB)
