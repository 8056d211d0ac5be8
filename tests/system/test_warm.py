"""Warm replicas: copies of a micro VM whose service runs are machines of their own."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from gemel.model.instance import InstanceSpec, Mount, MountKind
from gemel.model.paths import Paths
from gemel.runtime.microvm.runtime import MicroVmRuntime
from tests.conformance.conftest import KINDS, Harness, Image
from tests.conformance.conftest import image as image
from tests.images import busybox_tar
from tests.system.test_clones import FACTS, bridge, clock_error, nic

pytestmark = pytest.mark.root
bridge = bridge

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
    async with asyncio.timeout(60):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def snapshot(vm: Harness, spec: InstanceSpec) -> None:
    """Has one taken of the instance."""
    warm = runtime(vm).warm
    vm.runtime.healthy(spec.id)
    await until(lambda: not warm._making)
    assert len(warm._ready) == 1, warm._failed


async def test_each_warm_replica_is_its_own_machine(
    vm: Harness, bridge: str, warm_image: Path
) -> None:
    async def start(number: int) -> InstanceSpec:
        network = await nic(bridge, 10 + number)
        spec = vm.shell(SERVICE, network=network, root_image=warm_image, labels=WARM)
        began = time.monotonic()
        await vm.start(spec)
        print(number, runtime(vm).boot(spec.id), time.monotonic() - began)
        print((vm.paths.instance_run(spec.id) / "guest.log").read_text())
        return spec

    first = await start(0)
    assert runtime(vm).boot(first.id)[0] == "cloned"
    await vm.expect(first, b"serving")
    await snapshot(vm, first)
    print((vm.paths.instance_run(first.id) / "guest.log").read_text())
    specs = [await start(number) for number in range(1, 4)]
    for spec in specs:
        assert runtime(vm).boot(spec.id) == ("warm", ""), runtime(vm).boot(spec.id)
        print(await vm.output(spec))
