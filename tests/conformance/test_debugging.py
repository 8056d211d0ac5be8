"""Programs of a toolbox beside an instance, and starts that wait for a debugger."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator

import pytest

from gemel.model.instance import InstanceSpec, Process, Toolbox
from tests.conformance.conftest import DEADLINE, Harness, Output, read_until, talk
from tests.images import busybox_tar

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def toolbox(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    """A toolbox with busybox and nothing else."""
    folder = tmp_path_factory.mktemp("toolbox")
    out = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=out, mode="a") as tar:
        link = tarfile.TarInfo("service")
        link.type, link.linkname = tarfile.SYMTYPE, "/proc/1/root"
        tar.addfile(link)
        mark = tarfile.TarInfo("etc/toolbox")
        tar.addfile(mark)
    root = folder / "root"
    root.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        tar.extractall(root, filter="fully_trusted")
    command = ["tar2sqfs", "-q", "-c", "lz4", str(folder / "toolbox.sqfs")]
    subprocess.run(command, input=out.getvalue(), check=True, timeout=60)
    return Toolbox(root_image=folder / "toolbox.sqfs", rootfs=root)


async def debug(
    harness: Harness, spec: InstanceSpec, toolbox: Toolbox, script: str, *, running: bool = True
) -> Output:
    """A shell script of the toolbox."""
    process = Process(argv=("/bin/sh", "-c", script), env=("PATH=/bin",), stdin=True)
    async with asyncio.timeout(DEADLINE):
        session = await harness.runtime.debug(spec, toolbox, process, running)
        return await talk(session)


@contextlib.asynccontextmanager
async def held_open(harness: Harness, spec: InstanceSpec, toolbox: Toolbox) -> AsyncIterator[None]:
    """A session that goes on meanwhile, so that a guest keeps its disk."""
    process = Process(argv=("/bin/sh", "-c", "echo here; read x"), env=("PATH=/bin",), stdin=True)
    async with asyncio.timeout(DEADLINE):
        session = await harness.runtime.debug(spec, toolbox, process, True)
    try:
        await read_until(session, b"here")
        yield
    finally:
        await talk(session)


async def test_beside_a_running_one(harness: Harness, toolbox: Toolbox) -> None:
    """It sees the service's processes, files and name; what it writes is its own."""
    script = "rm /bin/sh; echo ready; exec /bin/busybox sleep 1000"
    spec = await harness.start(harness.shell(script, hostname="web-1"))
    await harness.expect(spec, b"ready")
    async with held_open(harness, spec, toolbox):
        got = await debug(
            harness,
            spec,
            toolbox,
            """
            until grep -q ^/bin/busybox /proc/1/cmdline; do sleep 0.1; done
            tr '\\0' ' ' < /proc/1/cmdline; echo; hostname; id -u
            test -e /etc/toolbox && test ! -e /service/etc/toolbox && echo own root
            test ! -e /service/bin/sh && echo its root
            touch /etc/mine && test ! -e /service/etc/mine && echo kept apart
            echo seen > /service/tmp/from-outside; kill -0 1 && echo may
            exit 7
            """,
        )
        assert got.status == 7, got
        lines = got.stdout.decode().splitlines()
        assert lines[0].startswith("/bin/busybox sleep 1000")
        assert lines[1:] == ["web-1", "0", "own root", "its root", "kept apart", "may"]
        seen = await harness.exec(spec, "/bin/busybox", "cat", "/tmp/from-outside")
        assert seen.stdout == b"seen\n"
        # nothing of it counts for the service
        assert (await harness.runtime.usage(spec.id)).pids == 1
        again = await debug(harness, spec, toolbox, "test ! -e /etc/mine && echo new")
        assert again.stdout == b"new\n"
    process = Process(argv=("/bin/sh", "-c", "echo here; exec sleep 1000"), env=("PATH=/bin",))
    async with asyncio.timeout(DEADLINE):
        session = await harness.runtime.debug(spec, toolbox, process, True)
        await read_until(session, b"here")
        await harness.stop(spec)  # which ends what looks at it
        assert await session.wait() == 137
        await session.close()
        while (harness.paths.run / "debug").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_beside_one_that_has_ended(harness: Harness, toolbox: Toolbox) -> None:
    """Its files are there as it left them."""
    spec = await harness.start(harness.shell("echo last > /root/words; exit 3"))
    assert (await harness.wait(spec)).status == 3
    await harness.runtime.cleanup(spec.id)
    got = await debug(
        harness,
        spec,
        toolbox,
        "cat /service/root/words; chroot /service /bin/busybox ls /dev/null; ls /proc/2 | head -1",
        running=False,
    )
    assert got.stdout.decode().splitlines()[:2] == ["last", "/dev/null"], got


async def test_halted_before_the_first_instruction(harness: Harness, toolbox: Toolbox) -> None:
    spec = await harness.start(harness.shell("echo it runs", halted=True))
    look = "grep State /proc/1/status; tr '\\0' ' ' < /proc/1/cmdline"
    got = await debug(harness, spec, toolbox, look)
    assert b"stopped" in got.stdout and b"echo it runs" in got.stdout, got
    assert (await harness.output(spec))[0] == b""
    await harness.runtime.kill(spec.id, signal.SIGCONT)
    assert (await harness.wait(spec)).status == 0
    assert (await harness.output(spec))[0] == b"it runs\n"
