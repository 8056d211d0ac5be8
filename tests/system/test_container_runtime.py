"""Containers alone: what only crun, conmon and a shared kernel have."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gemel.errors import Failed, GemelError, InvalidInput, Unsupported
from gemel.model.instance import (
    Device,
    GuestFile,
    Mount,
    MountKind,
    Process,
    Resources,
    Security,
    Ulimit,
)
from gemel.model.paths import Paths
from gemel.observe import logs
from gemel.runtime.container import monitor
from gemel.runtime.container.crun import Filters
from gemel.runtime.container.monitor import Files, load
from gemel.runtime.container.runtime import ContainerRuntime
from tests.conformance.conftest import KINDS, Harness, Image, image, read_all
from tests.conformance.test_lifecycle import nothing_left

pytestmark = pytest.mark.root
__all__ = ["image"]


@pytest.fixture
async def harness(tmp_path: Path, image: Image) -> AsyncIterator[Harness]:
    made = Harness(KINDS["container"], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"mounts": (Mount(kind=MountKind.BIND, target="/x", source=Path("/no/such")),)}, Failed),
        ({"devices": (Device(source="/dev/no-such", target="/dev/x"),)}, InvalidInput),
        ({"user": "ghost"}, InvalidInput),
        ({"cwd": "relative"}, InvalidInput),
        ({"cwd": "/etc/passwd"}, InvalidInput),
        ({"security": Security(cap_add=("FLY",))}, InvalidInput),
        ({"security": Security(seccomp="{")}, InvalidInput),
        ({"sysctls": (("kernel.no_such", "1"),)}, Failed),
        ({"log": Path("/proc/no/log")}, GemelError),
        ({"files": (GuestFile(target="/etc/x", source=Path("/no/such")),)}, GemelError),
        ({"rootfs": None}, InvalidInput),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
async def test_a_start_that_fails_leaves_nothing(
    harness: Harness, options: dict[str, object], kind: type[Exception]
) -> None:
    spec = harness.spec("sleep", "1000", **options)
    with pytest.raises(kind):
        await harness.start(spec)
    await nothing_left(harness)


async def test_limits_beyond_the_engines_own(harness: Harness) -> None:
    """Without CAP_SYS_RESOURCE they are refused with a reason; with it they are given."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = Ulimit(name="nofile", soft=hard + 1000, hard=hard + 1000)
    for resources, words in (
        (Resources(ulimits=(wanted,)), "rlimits"),
        (Resources(oom_score_adj=-900), "oom_score_adj"),
    ):
        try:
            got = await harness.run(
                harness.shell("ulimit -n; cat /proc/self/oom_score_adj", resources=resources)
            )
        except Unsupported as error:
            assert words in error.brief and "CAP_SYS_RESOURCE" in error.resolution
            await nothing_left(harness)
        else:
            assert str(hard + 1000).encode() in got.stdout or b"-900" in got.stdout


async def test_a_killed_monitor_ends_the_container(harness: Harness) -> None:
    spec = await harness.start(harness.spec("sleep", "1000"))
    record = load(Files(harness.paths.instance_run(spec.id), spec.id))
    assert record is not None
    os.kill(record.conmon, signal.SIGKILL)
    ended = await harness.wait(spec)
    assert ended.status == 137 and "conmon" in ended.error
    await harness.runtime.cleanup(spec.id)
    await nothing_left(harness)
    assert (await harness.run(harness.spec("true"))).status == 0


async def test_a_machine_that_was_restarted(harness: Harness) -> None:
    """Only the record is left, of processes that are no more or are others now."""
    spec = await harness.start(harness.spec("sleep", "1000"))
    files = Files(harness.paths.instance_run(spec.id), spec.id)
    record = load(files)
    assert record is not None
    await harness.stop(spec)
    files.run.mkdir(parents=True)
    stale = msgspec.structs.replace(record, conmon=os.getpid(), pid=os.getpid())
    files.record.write_bytes(msgspec.json.encode(stale))
    await harness.successor()
    assert not await harness.runtime.adopt(spec)
    assert (await harness.wait(spec)).status == 137
    await harness.runtime.cleanup(spec.id)
    await harness.start(spec)
    assert (await harness.stop(spec)).status == 137


async def test_an_engine_that_dies_within_a_start(harness: Harness) -> None:
    """At each step; what is left is taken away by the next engine, and a running one stays."""
    running = await harness.start(harness.spec("sleep", "1000"))
    for step in ("bundle", "monitor", "record"):
        spec = harness.spec("sleep", "1000")
        harness.specs[spec.id] = spec
        runtime = harness.runtime
        assert isinstance(runtime, ContainerRuntime)
        paths = runtime._files(spec.id)
        await runtime.create(spec)
        runtime._make_bundle(spec, paths)
        if step != "bundle":
            await monitor.create(spec, paths, runtime._crun)
        if step == "monitor":
            paths.record.unlink()
    view = runtime._views.open(spec)
    await view.__aenter__()
    await harness.successor()
    assert await harness.runtime.adopt(running)
    assert (await harness.stop(running)).status == 137
    await nothing_left(harness)


async def test_log_is_begun_anew_and_followed(harness: Harness) -> None:
    """conmon replaces the log when it is full; a follower misses no line of the new one."""
    spec = harness.shell(
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done", log_size=40_000
    )
    harness.specs[spec.id] = spec
    await harness.start(spec)
    await harness.wait(spec)
    assert spec.log.stat().st_size <= 60_000
    # a line may have come in two parts
    data = b"".join([line.data async for line in logs.read(spec.log, tail=2)])
    assert data == b"line 2999\nline 3000\n"


async def test_devices_and_privileges(harness: Harness) -> None:
    script = "head -c 4 /dev/mine | wc -c; mount -t tmpfs x /mnt 2>&1; echo $?"
    device = Device(source="/dev/zero", target="/dev/mine", permissions="r")
    got = await harness.run(harness.shell(f"mkdir -p /mnt; {script}", devices=(device,)))
    assert got.stdout.split()[0] == b"4" and not got.stdout.endswith(b"\n0\n")
    got = await harness.run(
        harness.shell(
            f"mkdir -p /mnt; {script}; grep Seccomp: /proc/self/status",
            devices=(device,),
            security=Security(privileged=True),
        )
    )
    assert got.stdout.split()[1:] == [b"0", b"Seccomp:", b"0"]


async def test_seccomp_and_masks(harness: Harness) -> None:
    """The filter is there, refuses what Docker's does, and lets ordinary programs be."""
    script = """
        grep Seccomp: /proc/self/status
        unshare -U true 2>/dev/null || echo no namespaces
        cat /proc/kcore 2>/dev/null | head -c 1 | wc -c
        echo 1 2>/dev/null > /proc/sysrq-trigger || echo no sysrq
        echo x 2>/dev/null > /sys/kernel/mm/ksm/run || echo no sysfs
        ls /sys/firmware | wc -l
        test -w /sys/fs/cgroup/memory || echo no cgroup
    """
    wanted = ["Seccomp:\t2", "no namespaces", "0", "no sysrq", "no sysfs", "0"]
    for _ in range(2):  # the second has the filter that was compiled for the first
        got = await harness.run(harness.shell(script))
        assert got.stdout.decode().splitlines()[:6] == wanted
    spec = await harness.start(harness.spec("sleep", "1000"))
    assert Filters.ANNOTATION in (harness.paths.instance_run(spec.id) / "config.json").read_text()
    got = await harness.exec(spec, "sh", "-c", "unshare -U true; grep Seccomp: /proc/self/status")
    assert got.stdout == b"Seccomp:\t2\n" and got.stderr != b""
    # another profile has another filter
    spec = harness.shell("unshare -U true && echo free", security=Security(seccomp="unconfined"))
    assert (await harness.run(spec)).stdout == b"free\n"
    refuses = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refuses]}
    for _ in range(2):
        security = Security(seccomp=msgspec.json.encode(profile).decode())
        got = await harness.run(harness.shell("mkdir /x", security=security))
        assert b"No space left" in got.stderr


async def test_shared_namespaces(harness: Harness) -> None:
    first = await harness.start(harness.shell("echo x > /dev/shm/mark; exec sleep 1000"))
    pid = (await harness.runtime.processes(first.id, "-eo pid,args"))[1][0][0]
    script = "cat /dev/shm/mark; ps -o args | grep -c '[s]leep 1000'"
    await harness.exec(first, "sh", "-c", "until test -s /dev/shm/mark; do sleep 0.01; done")
    got = await harness.run(
        harness.shell(script, pid_mode=f"/proc/{pid}/ns/pid", ipc_mode=f"/proc/{pid}/ns/ipc")
    )
    assert got.stdout == b"x\n1\n"
    got = await harness.run(harness.shell("test -d /proc/$PPID", pid_mode="host"))
    assert got.status == 0
    spec = await harness.start(harness.shell("sleep 500 & exec sleep 1000", pid_mode="host"))
    assert (await harness.stop(spec)).status == 137  # and the other one does not hold it up


async def test_an_engine_with_a_long_path(tmp_path: Path, image: Image) -> None:
    """Sockets' paths have at most 107 bytes; a run folder may be longer."""
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    harness = Harness(KINDS["container"], Paths(deep / "root", deep / "run"), image)
    await harness.runtime.prepare()
    try:
        spec = harness.spec("sh", tty=True, stdin=True)
        stream = await harness.runtime.attach(spec.id)
        await harness.start(spec)
        session = await harness.runtime.exec(spec.id, Process(argv=("tty",), tty=True))
        assert b"/dev/pts" in (await read_all(session))[0]
        assert await session.wait() == 0
        await session.close()
        await stream.write(b"exit 3\n")
        await read_all(stream)
        assert (await harness.wait(spec)).status == 3
    finally:
        await harness.close()


async def test_cancelled_start_leaves_nothing(harness: Harness) -> None:
    for delay in (0.0, 0.004, 0.012, 0.03, 0.045):
        spec = harness.spec("sleep", "1000")
        task = asyncio.create_task(harness.start(spec))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await harness.stop(spec)
    await nothing_left(harness)
