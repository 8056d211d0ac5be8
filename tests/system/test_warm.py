"""Warm replicas: copies of a micro VM whose service runs are machines of their own."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from gemel.model.instance import InstanceSpec, Mount, MountKind, Process
from gemel.model.paths import Paths
from gemel.runtime.microvm.runtime import MicroVmRuntime
from gemel.runtime.microvm.warm import key
from tests.conformance.conftest import KINDS, Harness, Image
from tests.conformance.conftest import image as image
from tests.engine import IMAGE, EngineProcess
from tests.images import busybox_tar
from tests.system.test_clones import CLOCK, FACTS, clock_error, nic
from tests.system.test_clones import bridge as bridge

pytestmark = pytest.mark.root

WARM = (("gemel.snapshot", "warm"),)
#: Takes its time to start; then it serves, and counts the seconds since.
SERVICE = """
    sleep 2
    echo loaded > /tmp/state
    head -c 16 /dev/urandom | md5sum > /tmp/seed
    echo serving
    httpd -f -p 80 -h /tmp
"""
#: Tells what it finds, and that it was there before the service went on.
HOOK = f"""#!/bin/sh
ps | grep -q '[h]ttpd' || exit 7
{FACTS}
echo "hook of $HOSTNAME as $(id -u)" | tee /tmp/hook
test ! -e /tmp/fail
"""


@pytest.fixture(scope="module")
def warm_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Busybox with a hook and a machine-id."""
    target = tmp_path_factory.mktemp("warm") / "image.sqfs"
    tar = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=tar, mode="a") as archive:
        for name, text, mode in (
            ("etc/machine-id", "0" * 32, 0o644),
            ("etc/gemel/on-clone", HOOK, 0o755),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), mode
            archive.addfile(entry, io.BytesIO(text.encode()))
    command = ["tar2sqfs", "-q", "-c", "lz4", str(target)]
    subprocess.run(command, input=tar.getvalue(), check=True, timeout=60)
    return target


@pytest.fixture
async def vm(tmp_path: Path, image: Image) -> AsyncIterator[Harness]:
    """Real micro VMs."""
    made = Harness(KINDS["microvm"], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()


def runtime(vm: Harness) -> MicroVmRuntime:
    return cast(MicroVmRuntime, vm.runtime)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def snapshot(vm: Harness, spec: InstanceSpec) -> None:
    """Has one taken of the instance."""
    warm = runtime(vm).boots.warm
    async with asyncio.timeout(180):
        while True:
            vm.runtime.healthy(spec.id)
            await until(lambda: not warm._making)
            if "programs run in it" not in str(warm._failed):
                break
            warm._failed.clear()  # an exec's end may not have come through yet
    assert len(warm._ready) == 1, warm._failed


async def test_each_warm_replica_is_its_own_machine(
    vm: Harness, bridge: str, warm_image: Path
) -> None:
    async def start(number: int) -> InstanceSpec:
        network = await nic(bridge, 10 + number)
        return await vm.start(
            vm.shell(SERVICE, network=network, root_image=warm_image, labels=WARM)
        )

    async def fetch(spec: InstanceSpec, path: str) -> bytes:
        address = spec.network.interfaces[0].address.partition("/")[0]
        reader, writer = await asyncio.open_connection(address, 80)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        async with asyncio.timeout(120):
            answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    first = await start(0)
    assert runtime(vm).boot(first.id)[0] == "cloned"
    await vm.expect(first, b"serving")
    async with asyncio.timeout(120):
        while (await vm.exec(first, "sh", "-c", "netstat -ltn | grep :80")).status:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    seed = await fetch(first, "/seed")
    await snapshot(vm, first)
    assert await fetch(first, "/seed") == seed  # it goes on
    specs = [await start(number) for number in range(1, 4)]
    facts = []
    for number, spec in enumerate(specs, 1):
        assert runtime(vm).boot(spec.id) == ("warm", "")
        # nothing of what the original had said, and the service was not started anew
        lines = (await vm.output(spec))[0].decode().splitlines()
        uuid, random, boot, mac, name, machine, reached, hook = lines
        assert machine == spec.id[:32]
        assert mac == f"02:00:0a:4e:00:{10 + number:02x}"
        assert name == spec.hostname and reached == f"reached {name}"
        assert hook == f"hook of {name} as 0"
        facts.append((uuid, random, boot, mac, name, machine))
        assert await fetch(spec, "/seed") == seed
        assert await fetch(spec, "/hook") == hook.encode() + b"\n"
        shown = await vm.exec(spec, "sh", "-c", "ip -4 addr show eth0; cat /etc/hostname; hostname")
        assert f"inet 10.78.0.{10 + number}/24" in shown.stdout.decode()
        assert shown.stdout.decode().count("inet ") == 1
        assert await clock_error(vm, spec) < 20 * CLOCK
    for column in zip(*facts, strict=True):
        assert len(set(column)) == len(specs), f"two replicas share {column}"
    # a replica's layer is its own, and lasts
    await vm.exec(specs[0], "touch", "/tmp/mine")
    await vm.stop(specs[0])
    await vm.runtime.start(specs[0])
    word, reason = runtime(vm).boot(specs[0].id)
    assert word == "cloned" and "has run before" in reason
    assert (await vm.exec(specs[0], "ls", "/tmp/mine", "/tmp/hook")).status == 0
    assert (await vm.exec(specs[1], "ls", "/tmp/mine")).status != 0


async def test_what_fails_is_started_as_others_are(vm: Harness, warm_image: Path) -> None:
    def spec(**options: object) -> InstanceSpec:
        return vm.shell(SERVICE, root_image=warm_image, labels=WARM, **options)

    first = await vm.start(spec())
    await vm.expect(first, b"serving")
    await vm.exec(first, "touch", "/tmp/fail")
    held = await vm.runtime.exec(first.id, Process(argv=("sleep", "1000")))
    vm.runtime.healthy(first.id)
    warm = runtime(vm).boots.warm
    await until(lambda: bool(warm._failed))
    assert "programs run in it" in str(warm._failed)
    await held.kill(9)
    await held.wait()
    await held.close()
    warm._failed.clear()
    await snapshot(vm, first)
    # in a copy the hook finds the file that has it fail
    second = await vm.start(spec())
    word, reason = runtime(vm).boot(second.id)
    assert word == "cold" and "its hook ended with status 1" in reason
    await vm.expect(second, b"serving")
    assert (await vm.exec(second, "ls", "/tmp/fail")).status != 0
    assert not warm._ready
    third = await vm.start(spec())
    word, reason = runtime(vm).boot(third.id)
    assert word == "cloned" and "its hook ended" in reason
    for one in (second, third):
        await vm.stop(one)
    # another service, or one that cannot take part
    bound = Mount(kind=MountKind.TMPFS, target="/more")
    assert await asyncio.to_thread(key, spec(mounts=(bound,))) != warm._keys[first.id]
    assert await asyncio.to_thread(key, spec()) == warm._keys[first.id]
    fourth = await vm.start(vm.spec("sh", tty=True, labels=WARM))
    word, reason = runtime(vm).boot(fourth.id)
    assert word == "cloned" and "terminal" in reason
    for one in (first, second, third):
        await vm.runtime.cleanup(one.id)
        await vm.runtime.remove(one)
        del vm.specs[one.id]
    assert not warm._keys and len(warm._timers) == 1


FILE = """
name: NAME
services:
  web:
    image: IMAGE
    runtime: microvm
    stop_signal: SIGKILL
    command:
      - sh
      - -c
      - sleep 3; cat /proc/sys/kernel/random/uuid > /tmp/seed; httpd -f -p 80 -h /tmp
    x-gemel:
      snapshot: warm
      healthcheck: {http: /seed, port: 80, interval: 1s, start_period: 90s, timeout: 20s}
"""


def test_replicas_of_a_project_are_warm(fresh_engine: EngineProcess, tmp_path: Path) -> None:
    engine = fresh_engine
    name = f"w{uuid.uuid4().hex[:8]}"
    (tmp_path / "compose.yaml").write_text(FILE.replace("NAME", name).replace("IMAGE", IMAGE))

    def taken(count: int) -> None:
        said = "a snapshot of the running instance"
        engine.settle(lambda: engine.log.read_text().count(said) == count, "no snapshot is taken")

    def facts(number: int) -> tuple[str, str]:
        told = engine.ok("GET", f"/containers/{name}-web-{number}/json")
        assert told["State"]["Health"]["Status"] == "healthy"
        return told["Boot"], told["BootReason"]

    def seed(number: int) -> str:
        command = ["exec", f"{name}-web-{number}", "cat", "/tmp/seed"]
        return engine.gemel(*command, cwd=tmp_path).stdout

    engine.gemel("up", "-d", "--wait", cwd=tmp_path)
    taken(1)
    engine.gemel("up", "-d", "--wait", "--scale", "web=2", cwd=tmp_path)
    assert facts(1)[0] == "cloned"
    assert facts(2) == ("warm", "")
    assert seed(1) == seed(2)
    # a new engine has no snapshot any more, and takes one
    engine.kill_hard()
    engine.start()
    assert facts(2) == ("warm", "")
    taken(2)
    engine.gemel("up", "-d", "--wait", "--scale", "web=3", cwd=tmp_path)
    assert facts(3) == ("warm", "")
    engine.gemel("down", "-t", "1", cwd=tmp_path)
