"""What lasts and what is shared: bind mounts, volumes and files of micro VMs, clones all."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from gemel.model.instance import GuestFile, InstanceSpec, Mount, MountKind, Security
from gemel.model.paths import Paths
from gemel.runtime.microvm import machine
from gemel.runtime.microvm.runtime import MicroVmRuntime
from tests import leaks
from tests.conformance.conftest import DEADLINE, KINDS, Harness, Image
from tests.conformance.conftest import image as image
from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture
async def vm(tmp_path: Path, image: Image) -> AsyncIterator[Harness]:
    """Real micro VMs."""
    made = Harness(KINDS["microvm"], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()


def boot(vm: Harness, id: str) -> tuple[str, str]:
    """How it came up, and why."""
    return cast(MicroVmRuntime, vm.runtime).boot(id)


async def seen(vm: Harness, spec: InstanceSpec, command: str, wanted: bytes) -> None:
    """Waits until a command inside prints that: what a file server's guest has looked at lately
    it may take from its cache for a second."""
    async with asyncio.timeout(DEADLINE):
        while (got := await vm.exec(spec, "sh", "-c", command)).stdout != wanted:
            assert len(got.stdout) <= len(wanted), got


async def test_a_clone_with_all_kinds_of_mounts(vm: Harness, tmp_path: Path) -> None:
    folder, one, secret = tmp_path / "folder", tmp_path / "one", tmp_path / "secret"
    folder.mkdir()
    (folder / "edited").write_text("first\n")
    one.write_text("a file\n")
    secret.write_text("hush\n")
    spec = vm.shell(
        "echo up; exec sleep 1000",
        security=Security(readonly_rootfs=True),
        files=(GuestFile(target="/run/secrets/key", source=secret, mode=0o400),),
        mounts=(
            Mount(kind=MountKind.BIND, target="/folder", source=folder),
            Mount(kind=MountKind.BIND, target="/etc/one", source=one, readonly=True),
            Mount(kind=MountKind.TMPFS, target="/scratch", size=4 << 20),
        ),
    )
    await vm.start(spec)
    assert boot(vm, spec.id) == ("cloned", "")
    got = await vm.exec(spec, "cat", "/folder/edited", "/etc/one", "/run/secrets/key")
    assert got.stdout == b"first\na file\nhush\n"
    # edits of the host's are seen inside, in place and by renaming
    (folder / "edited").write_text("second\n")
    (folder / "new").write_text("third\n")
    (folder / "new").rename(folder / "renamed")
    await seen(vm, spec, "cat /folder/edited /folder/renamed", b"second\nthird\n")
    script = """
        echo inside > /folder/made && sync /folder/made
        mkdir /folder/deep && ln -s ../made /folder/deep/link
        touch /etc/one 2>/dev/null || echo fixed
        touch /etc/other 2>/dev/null || echo readonly
        echo x > /scratch/y && cat /scratch/y
    """
    got = await vm.exec(spec, "sh", "-c", script)
    assert got.stdout == b"fixed\nreadonly\nx\n", got
    assert (folder / "deep/link").read_text() == "inside\n"


async def test_the_layer_and_a_share_last_over_a_kill(vm: Harness, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    script = """
        cat /state /folder/state
        echo $((`cat /state` + 1)) > /state && sync /state
        cp /state /folder/state && sync /folder/state
        echo written; exec sleep 1000
    """
    mounts = (Mount(kind=MountKind.BIND, target="/folder", source=folder),)
    spec = vm.shell(script, mounts=mounts)
    for _ in range(2):
        await vm.start(spec)
        assert boot(vm, spec.id) == ("cloned", "")
        await vm.expect(spec, b"written")
        await vm.stop(spec)
        spec.log.unlink()
    await vm.start(spec)
    await vm.expect(spec, b"written")
    assert (await vm.output(spec))[0].startswith(b"2\n2\n")


async def test_shares_that_cannot_be_plugged_in_boot_cold(
    vm: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QEMU that refuses is no harm: the instance runs, and says why it was slow."""
    command = '{"execute": "device_add", "arguments": {"driver": "no-such-device"}}'
    monkeypatch.setattr(machine, "plug_commands", lambda _: [command])
    (tmp_path / "there").write_text("seen\n")
    mounts = (Mount(kind=MountKind.BIND, target="/folder", source=tmp_path),)
    for log in ("the clone failed", "the guest greets"):  # the second time it is not tried
        got = await vm.run(spec := vm.spec("cat", "/folder/there", mounts=mounts))
        assert got.stdout == b"seen\n"
        word, reason = boot(vm, spec.id)
        assert word == "cold" and "no-such-device" in reason
        assert log in (vm.paths.instance_run(spec.id) / "guest.log").read_text().splitlines()[0]
        await vm.runtime.cleanup(spec.id)
    # the template is as good as before for all others
    await vm.run(spec := vm.spec("true"))
    assert boot(vm, spec.id) == ("cloned", "")
    await vm.runtime.cleanup(spec.id)
    async with asyncio.timeout(60):
        while left := leaks.processes([vm.paths.run]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert not left


def test_a_volume_of_a_container_and_a_micro_vm_at_once(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    for name, runtime in (("near", "container"), ("far", "microvm")):
        host = {"Runtime": runtime, "Binds": ["data:/data"]}
        request = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": host}
        engine.ok("POST", f"/containers/create?name={name}", request)
        engine.ok("POST", f"/containers/{name}/start")
    assert engine.ok("GET", "/containers/far/json")["Boot"] == "cloned"
    for writer, reader in (("near", "far"), ("far", "near")):
        # what one has in its cache does not hide what the other writes
        for text in ("one", "two"):
            path = f"/data/{writer}"
            engine.gemel("exec", writer, "sh", "-c", f"echo {writer} {text} > {path}")
            end = time.monotonic() + 120
            while engine.gemel("exec", reader, "cat", path).stdout != f"{writer} {text}\n":
                assert time.monotonic() < end, "it is not seen"


def test_a_block_volume_is_a_disk_of_one_micro_vm_at_a_time(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    engine.ok("POST", "/volumes/create", {"Name": "disk", "DriverOpts": {"type": "block"}})

    def create(name: str, runtime: str = "microvm", target: str = "/data") -> tuple[int, object]:
        host = {"Runtime": runtime, "Binds": [f"disk:{target}"]}
        request = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": host}
        return engine.call("POST", f"/containers/create?name={name}", request)

    # what the image has at the target is in it, as in any new volume
    assert create("one", target="/etc")[0] == 201
    engine.ok("POST", "/containers/one/start")
    told = engine.ok("GET", "/containers/one/json")
    assert told["Boot"] == "cloned"
    script = "stat -c %a /etc; ls /etc/passwd; echo kept > /etc/mine; sync /etc/mine; df -T /etc"
    got = engine.gemel("exec", "one", "sh", "-c", script).stdout
    assert got.startswith("755\n/etc/passwd\n") and "ext4" in got
    # nobody else can have it meanwhile: neither a container nor another micro VM
    status, answer = create("near", "container")
    assert status >= 400 and "block volume" in str(answer) and "microvm" in str(answer), answer
    assert create("two")[0] == 201
    status, answer = engine.call("POST", "/containers/two/start", timeout=120)
    assert status >= 400 and "another micro VM uses" in str(answer), answer
    # the disk outlives its VM, also one that is killed, and the instance
    os.kill(told["State"]["Pid"], signal.SIGKILL)
    engine.ok("POST", "/containers/one/wait", timeout=60)
    engine.ok("DELETE", "/containers/one")
    engine.ok("POST", "/containers/two/start")
    assert engine.gemel("exec", "two", "cat", "/data/mine").stdout == "kept\n"
    engine.ok("DELETE", "/containers/two?force=1")
    (shown,) = [v for v in engine.ok("GET", "/system/df")["Volumes"] if v["Name"] == "disk"]
    assert 0 < shown["UsageData"]["Size"] < 1 << 30
    engine.ok("DELETE", "/volumes/disk")
    assert not (engine.paths.volumes / "disk").exists()
