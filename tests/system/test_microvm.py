"""Micro VMs: what becomes of them when a part is killed or a start fails; networks, limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gemel.errors import CommandNotFound, Failed, InvalidInput, NotFound
from gemel.host import cgroups
from gemel.host.run import run
from gemel.model.instance import Interface, Mount, MountKind, Network, Resources
from gemel.model.paths import Paths
from gemel.runtime.microvm import build, probe, relay
from tests.conformance.conftest import KINDS, Harness, Image
from tests.conformance.conftest import image as image

pytestmark = pytest.mark.root

DEADLINE = 120.0


@pytest.fixture
async def vm(tmp_path: Path, image: Image) -> AsyncIterator[Harness]:
    """Real micro VMs."""
    made = Harness(KINDS["microvm"], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()


def left(harness: Harness) -> list[str]:
    """What still names this test's run folder: processes, control groups, files."""
    found = [str(path) for path in (harness.paths.run / "instances").iterdir()]
    found += map(str, Path("/sys/fs/cgroup").glob(f"*/{harness.paths.cgroup}/*"))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if bytes(harness.paths.run) in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


async def settled(harness: Harness) -> list[str]:
    """The same, once what goes on in the background has ended."""
    end = time.monotonic() + DEADLINE
    while (found := left(harness)) and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return found


async def test_a_killed_vmm_is_told_of_and_starts_again(vm: Harness) -> None:
    spec = vm.shell("cat /kept; echo kept > /kept; sync; echo up; exec sleep 1000")
    vm.specs[spec.id] = spec
    await vm.runtime.create(spec)
    pid = await vm.runtime.start(spec)
    await vm.expect(spec, b"up\n")
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{build.FIRST_USER + int(spec.id[:6], 16)}\t" in status
    assert "CapPrm:\t0000000000000000" in status and "Seccomp:\t2" in status
    inside = os.listdir(f"/proc/{pid}/root")
    assert {"kernel", "initrd", "usr"} <= set(inside) and "root" not in inside
    os.kill(pid, signal.SIGKILL)
    ended = await vm.wait(spec)
    assert ended.status == 137 and "ended by itself" in ended.error
    await vm.runtime.cleanup(spec.id)
    assert await settled(vm) == []
    await vm.runtime.start(spec)
    await vm.expect(spec, b"kept\n")


async def test_a_vmm_killed_while_it_boots(vm: Harness) -> None:
    spec = vm.spec("sleep", "1000", labels=(("gemel.snapshot", "off"),))
    vm.specs[spec.id] = spec
    await vm.runtime.create(spec)
    starting = asyncio.create_task(vm.runtime.start(spec))
    async with asyncio.timeout(DEADLINE):
        while not (vmm := _vmm(vm, spec.id)):  # noqa: ASYNC110  nothing tells of a process
            await asyncio.sleep(0.005)
        os.kill(vmm, signal.SIGKILL)
        with pytest.raises(Failed, match="could not be started") as told:
            await starting
    assert "ended by itself" in (told.value.details or "")
    assert await settled(vm) == []


def _vmm(harness: Harness, id: str) -> int:
    for pid in cgroups.processes(f"{harness.paths.cgroup}/{id}"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("qemu"):
                return pid
    return 0


async def test_a_killed_relay_takes_the_vm_with_it(vm: Harness) -> None:
    spec = await vm.start(vm.spec("sleep", "1000"))
    pids = relay.read_pids(vm.paths.instance_run(spec.id))
    assert pids is not None
    os.kill(pids[0], signal.SIGKILL)
    ended = await vm.wait(spec)
    assert ended.status == 137 and "relay ended unexpectedly" in ended.error
    await vm.runtime.cleanup(spec.id)
    assert await settled(vm) == []
    with contextlib.suppress(FileNotFoundError):  # whoever inherited it may not have reaped it yet
        assert ") Z " in Path(f"/proc/{pids[1]}/stat").read_text()


async def test_failed_starts_leave_nothing(vm: Harness, tmp_path: Path) -> None:
    missing = Mount(kind=MountKind.BIND, target="/x", source=tmp_path / "not there")
    nic = Interface(
        name="eth0",
        host="no-such-tap",
        bridge="none",
        mac="02:00:00:00:00:01",
        address="10.1.1.2/24",
        gateway="10.1.1.1",
    )
    for spec, error in (
        (vm.spec("no-such-program"), CommandNotFound),
        (vm.spec("true", user="ghost"), InvalidInput),
        (vm.spec("true", mounts=(missing,)), NotFound),
        (vm.spec("true", root_image=tmp_path / "no image"), Failed),
        (vm.spec("true", network=Network(interfaces=(nic,))), Failed),
    ):
        with pytest.raises(error):
            await vm.start(spec)
        assert await settled(vm) == []


def _network(bridge: str, tap: str) -> None:
    """A bridge with an address and a persistent tap on it, in the tests' own namespace."""
    for words in (
        f"link add {bridge} type bridge",
        f"addr add 10.77.0.1/24 dev {bridge}",
        f"link set {bridge} up",
        f"tuntap add {tap} mode tap",
        f"link set {tap} master {bridge} up",
    ):
        subprocess.run(["ip", *words.split()], check=True, timeout=20)


async def test_network_files_and_limits(vm: Harness, tmp_path: Path) -> None:
    suffix = secrets.token_hex(3)
    bridge, tap = f"gb{suffix}", f"gt{suffix}"
    _network(bridge, tap)
    nic = Interface(
        name="eth0",
        host=tap,
        bridge=bridge,
        mac="02:00:0a:4d:00:05",
        address="10.77.0.5/24",
        gateway="10.77.0.1",
    )
    single = tmp_path / "single"
    single.write_text("one file\n")
    script = """
        cat /conf/one
        echo changed > /conf/one
        ls /conf
        ip -4 addr show eth0 | grep -o '10.77.0.5/24'
        ip route | grep -c 'default via 10.77.0.1'
        cat /sys/class/net/eth0/address
        ping -c 1 -W 20 10.77.0.1 > /dev/null && echo reached
    """
    spec = vm.shell(
        script,
        network=Network(interfaces=(nic,)),
        mounts=(Mount(kind=MountKind.BIND, target="/conf/one", source=single),),
        resources=Resources(cpus=0.9, memory=64 << 20),
    )
    try:
        got = await vm.run(spec)
        assert (got.stdout.decode().splitlines(), got.stderr) == (
            ["one file", "one", "10.77.0.5/24", "1", "02:00:0a:4d:00:05", "reached"],
            b"",
        )
        assert single.read_text() == "changed\n"
    finally:
        for name in (bridge, tap):
            await run(["ip", "link", "del", name])


async def test_the_probe_gives_a_reason_and_is_remembered(vm: Harness) -> None:
    first = await probe.accelerator(vm.paths)
    assert first.name in ("kvm", "tcg") and first.reason
    assert (first.name == "kvm") == first.usable_kvm
    assert await probe.accelerator(vm.paths) == first
    assert not list(vm.paths.run.glob("probe-*"))
