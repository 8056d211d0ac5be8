"""Clones of templates: each is its own machine, and whatever goes wrong a cold boot takes over."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import re
import secrets
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from gemel.host import memfile, memory
from gemel.host.run import run
from gemel.model.instance import InstanceSpec, Interface, Network
from gemel.model.paths import Paths
from gemel.runtime.microvm import relay
from gemel.runtime.microvm.machine import Guest
from gemel.runtime.microvm.runtime import MicroVmRuntime
from gemel.runtime.microvm.templates import Template
from tests import leaks
from tests.conformance.conftest import KINDS, Harness, Image
from tests.conformance.conftest import image as image
from tests.engine import IMAGE, EngineProcess
from tests.images import busybox_tar

pytestmark = pytest.mark.root

#: How far a clone's clock may be off, in seconds.
CLOCK = 0.05
#: Clones that are compared.
MANY = int(os.environ.get("GEMEL_TEST_CLONES", "10"))


@pytest.fixture
async def vm(tmp_path: Path, image: Image) -> AsyncIterator[Harness]:
    """Real micro VMs."""
    made = Harness(KINDS["microvm"], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()


def runtime(vm: Harness) -> MicroVmRuntime:
    return cast(MicroVmRuntime, vm.runtime)


@pytest.fixture
async def bridge() -> AsyncIterator[str]:
    """A bridge; its taps end with it."""
    name = f"gb{secrets.token_hex(3)}"
    await run(["ip", "link", "add", name, "type", "bridge"])
    await run(["ip", "addr", "add", "10.78.0.1/24", "dev", name])
    await run(["ip", "link", "set", name, "up"])
    taps: list[str] = []
    _TAPS[name] = taps
    yield name
    for one in [*taps, name]:
        await run(["ip", "link", "del", one], check=False)


_TAPS: dict[str, list[str]] = {}


async def nic(bridge: str, number: int) -> Network:
    """A network of one interface, its tap on the bridge."""
    tap = f"gt{secrets.token_hex(4)}"
    _TAPS[bridge].append(tap)
    await run(["ip", "tuntap", "add", tap, "mode", "tap"])
    await run(["ip", "link", "set", tap, "master", bridge, "up"])
    return Network(
        interfaces=(
            Interface(
                name="eth0",
                host=tap,
                bridge=bridge,
                mac=f"02:00:0a:4e:00:{number:02x}",
                address=f"10.78.0.{number}/24",
                gateway="10.78.0.1",
            ),
        )
    )


@pytest.fixture
def with_machine_id(tmp_path: Path) -> Path:
    """An image with an /etc/machine-id, as distributions have it."""
    target = tmp_path / "image.sqfs"
    tar = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=tar, mode="a") as archive:
        entry = tarfile.TarInfo("etc/machine-id")
        entry.size = 32
        archive.addfile(entry, io.BytesIO(b"0" * 32))
    command = ["tar2sqfs", "-q", "-c", "lz4", str(target)]
    subprocess.run(command, input=tar.getvalue(), check=True, timeout=60)
    return target


ONE_PORT = (("net.ipv4.ip_local_port_range", "40000 40000"),)
FACTS = """
    cat /proc/sys/kernel/random/uuid
    head -c 32 /dev/urandom | md5sum
    cat /proc/sys/kernel/random/boot_id
    cat /sys/class/net/eth0/address
    hostname
    cat /etc/machine-id
    ping -c 1 -W 20 10.78.0.1 > /dev/null && echo reached $(hostname)
"""


async def first_sequence(vm: Harness, spec: InstanceSpec) -> int:
    """The sequence number that a guest begins a TCP connection with, less the time.

    The connection has the same addresses and ports in every guest, and nobody answers it.
    """
    nic = spec.network.interfaces[0]
    ends = bytes((10, 99, 0, 2, 10, 99, 0, 1))
    script = """
        ip addr add 10.99.0.2/24 dev eth0
        arp -s 10.99.0.1 02:00:00:00:00:99
        nc -w 1 10.99.0.1 80 || true
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packets:
        packets.bind((nic.host, 3))  # all: what a bridge takes no other kind sees
        packets.setblocking(False)
        loop = asyncio.get_running_loop()
        caller = asyncio.create_task(vm.exec(spec, "sh", "-c", script, privileged=True))
        try:
            async with asyncio.timeout(120):
                frame = b""
                # the bridge hands the other guests' packets on to this one
                while frame[6:14].hex(":") != f"{nic.mac}:08:00" or frame[26:34] != ends:
                    frame = await loop.sock_recv(packets, 2048)
                    at = time.time_ns()
        finally:
            await caller
    assert frame[23] == 6
    assert frame[34:36] == (40000).to_bytes(2, "big")
    return int((int.from_bytes(frame[38:42], "big") - at // 64) % 2**32)


async def clock_error(vm: Harness, spec: InstanceSpec) -> float:
    """Seconds by which the guest's clock is certainly off; what the question takes is no error."""
    before = time.time()
    got = await vm.exec(spec, "sh", "-c", "touch /now; stat -c %y /now; date +%z")
    after = time.time()
    stamp = re.search(rb"(\d\d):(\d\d):(\d\d\.\d+)", got.stdout)
    assert stamp, got
    told = int(stamp[1]) * 3600 + int(stamp[2]) * 60 + float(stamp[3])
    day = before - before % 86400
    low, high = before - day, after - day
    return max(low - told, told - high, 0.0)


async def test_each_clone_is_its_own_machine(
    vm: Harness, bridge: str, with_machine_id: Path
) -> None:
    specs = []
    for number in range(MANY):
        script = f"{FACTS}\nexec sleep 1000"
        network = await nic(bridge, 10 + number)
        spec = vm.shell(script, network=network, root_image=with_machine_id, sysctls=ONE_PORT)
        specs.append(await vm.start(spec))
        assert runtime(vm).boot(spec.id) == ("cloned", "")
    facts = []
    for spec in specs:
        await vm.expect(spec, b"reached " + spec.hostname.encode())
        out, err = await vm.output(spec)
        assert err == b""
        facts.append(out.decode().splitlines())
    for number, spec in enumerate(specs):
        uuid, random, boot, mac, name, machine = facts[number][:6]
        assert machine == spec.id[:32]
        assert mac == f"02:00:0a:4e:00:{10 + number:02x}"
        assert name == spec.hostname
        assert len({uuid, random, boot}) == 3
    for column in range(6):
        assert len({row[column] for row in facts}) == MANY, f"two clones share {facts}"
    sequences = await asyncio.gather(*(first_sequence(vm, spec) for spec in specs))
    # a number is a secret's hash of the addresses and ports, which are the same here, and the time
    # in units of 64 ns: with one secret all would be the same within some ten milliseconds
    near = sum(
        min((one - other) % 2**32, (other - one) % 2**32) < CLOCK * 2 * 1e9 / 64
        for one, other in itertools.combinations(sequences, 2)
    )
    assert near <= 3, f"clones share the secret of their TCP sequence numbers: {sequences}"
    errors = sorted([await clock_error(vm, spec) for spec in specs])
    assert errors[MANY // 2] < 20 * CLOCK, errors  # the template's is further off
    # a host that lets a guest wait for long tells the time badly; the relay asks it each minute
    deadline = time.monotonic() + 150
    while errors[MANY // 2] >= CLOCK or errors[-1] >= 20 * CLOCK:
        assert time.monotonic() < deadline, errors
        await asyncio.sleep(1)
        errors = sorted([await clock_error(vm, spec) for spec in specs])
    # one template for them all
    assert len(runtime(vm).boots.templates.kinds) == 1


async def test_the_clock_is_right_after_a_stop_and_a_pause(vm: Harness) -> None:
    spec = await vm.start(vm.spec("sleep", "1000"))
    pids = relay.read_pids(vm.paths.instance_run(spec.id))
    assert pids is not None
    os.kill(pids[1], signal.SIGSTOP)
    try:
        await asyncio.sleep(3)
    finally:
        os.kill(pids[1], signal.SIGCONT)
    async with asyncio.timeout(150):  # see above
        while await clock_error(vm, spec) >= CLOCK:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    # as if the host had slept: the guest has not noticed that time went by
    await vm.exec(spec, "date", "-s", "@1000000000", privileged=True)
    assert await clock_error(vm, spec) > 1
    await vm.runtime.pause(spec.id)
    await vm.runtime.resume(spec.id)
    async with asyncio.timeout(60):
        while await clock_error(vm, spec) > CLOCK:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def proportional(vm: Harness, spec: InstanceSpec) -> int:
    """MiB that the VMM takes."""
    pids = relay.read_pids(vm.paths.instance_run(spec.id))
    assert pids is not None
    return memory.proportional([pids[1]]) >> 20


@pytest.mark.parametrize("snapshot", ["on", "off"])
async def test_what_the_guest_frees_the_host_gets_back(vm: Harness, snapshot: str) -> None:
    labels = (("gemel.snapshot", snapshot),)
    spec = await vm.start(vm.spec("sleep", "1000", labels=labels))
    assert runtime(vm).boot(spec.id)[0] == {"on": "cloned", "off": "cold"}[snapshot]
    # busybox's own code is translated and the disk's structures are read before it is looked at
    await vm.exec(
        spec, "sh", "-c", "dd if=/dev/zero of=/dev/shm/small bs=1M count=1; rm /dev/shm/*"
    )
    fill = ("dd", "if=/dev/zero", "of=/dev/shm/large", "bs=1M", "count=60")
    async with asyncio.timeout(180):
        while True:
            before = proportional(vm, spec)
            await vm.exec(spec, *fill)
            full = proportional(vm, spec)
            await vm.exec(spec, "rm", "/dev/shm/large")
            if full - before > 40:
                break
            await asyncio.sleep(2)  # what its boot has freed was used, and not given back yet
    deadline = asyncio.get_running_loop().time() + 180
    while (now := proportional(vm, spec)) > full - 35:
        assert asyncio.get_running_loop().time() < deadline, (before, full, now)
        await asyncio.sleep(0.1)


def _spoilt_state(guest: Guest) -> Guest:
    state = memfile.make("spoilt")
    os.write(state, b"QEVM" + bytes(4000))
    return Guest(memory=os.dup(guest.memory), state=state)


def _spoilt_memory(guest: Guest) -> Guest:
    size = os.fstat(guest.memory).st_size
    return Guest(memory=memfile.make("spoilt", size), state=os.dup(guest.state))


@pytest.mark.parametrize("spoil", [_spoilt_state, _spoilt_memory])
async def test_a_broken_template_is_dropped_for_a_cold_boot(vm: Harness, spoil: object) -> None:
    assert callable(spoil)
    templates = runtime(vm).boots.templates
    first = await vm.start(vm.spec("true"))
    assert runtime(vm).boot(first.id) == ("cloned", "")
    (kind,) = templates.kinds
    good = templates._ready[kind]
    templates._ready[kind] = Template(spoil(good.guest))
    good.close()
    got = await vm.run(second := vm.spec("echo", "fine"))
    assert got.stdout == b"fine\n"
    word, reason = runtime(vm).boot(second.id)
    assert word == "cold"
    assert reason
    assert templates.kinds == []


def _boot(engine: EngineProcess, name: str) -> tuple[str, str]:
    told = engine.ok("GET", f"/containers/{name}/json")
    return told["Boot"], told["BootReason"]


def test_inspect_says_how_it_was_booted(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    base = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"Runtime": "microvm"}}
    wanted = {
        "one": base,
        "off": {**base, "Labels": {"gemel.snapshot": "off"}},
        "shared": {**base, "HostConfig": {"Runtime": "microvm", "Binds": ["data:/data"]}},
    }
    for name, request in wanted.items():
        engine.ok("POST", f"/containers/create?name={name}", request)
        engine.ok("POST", f"/containers/{name}/start")
    assert _boot(engine, "one") == ("cloned", "")
    word, reason = _boot(engine, "off")
    assert (word, "off" in reason) == ("cold", True)
    assert _boot(engine, "shared") == ("cloned", "")
    engine.kill_hard()
    engine.start()
    assert _boot(engine, "one") == ("cloned", "")


def test_an_engine_killed_while_it_makes_a_template(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    folder = engine.paths.run / "templates"
    request = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Runtime": "microvm"}}
    engine.ok("POST", "/containers/create?name=one", request)
    deadline = time.monotonic() + 60
    while not list(folder.glob("*/jail")):
        assert time.monotonic() < deadline, "no template is made"
        time.sleep(0.002)
    engine.kill_hard()
    deadline = time.monotonic() + 60
    while left := [line for line in leaks.processes([engine.base]) if "relay" in line]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    engine.start()
    assert list(folder.iterdir()) == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{engine.paths.cgroup}/template-*"))
    engine.ok("POST", "/containers/one/start")
    assert engine.ok("POST", "/containers/one/wait", timeout=120)["StatusCode"] == 0


async def test_a_runtime_that_closes_leaves_no_template(vm: Harness) -> None:
    spec = vm.spec("true")
    vm.specs[spec.id] = spec
    await vm.runtime.create(spec)
    folder = vm.paths.run / "templates"
    async with asyncio.timeout(60):
        while not list(folder.glob("*/jail")):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    await vm.runtime.close()
    assert list(folder.iterdir()) == []
    assert runtime(vm).boots.templates.kinds == []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        assert bytes(vm.paths.run) not in line
    await vm.successor()


def test_a_template_cannot_be_changed() -> None:
    """Not by a clone that has it open for writing, as QEMU does."""
    fd = memfile.make("test", 4096)
    memfile.seal(fd)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
    finally:
        os.close(again)
        os.close(fd)
