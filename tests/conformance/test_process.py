"""What a program finds around it, and further programs (exec)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest

from gemel.errors import CommandNotRunnable, Conflict
from gemel.model.instance import (
    GuestFile,
    Mount,
    MountKind,
    Process,
    Resources,
    Security,
    Ulimit,
)
from gemel.observe import logs
from tests.conformance.conftest import DEADLINE, Harness, read_all, read_until

pytestmark = pytest.mark.root


async def test_surroundings(harness: Harness) -> None:
    """User, groups, variables, folder, name and limits of the first program and of others."""
    script = "id; env; pwd; hostname; ulimit -n; cat /proc/self/oom_score_adj; exec sleep 1000"
    spec = await harness.start(
        harness.shell(
            script,
            user="app",
            groups=("2001",),
            env=("COLOUR=blue", "EMPTY=", "ODD=a b=c"),
            cwd="/made/for it",
            hostname="web-1",
            resources=Resources(ulimits=(Ulimit(name="nofile", soft=600, hard=700),)),
        )
    )
    await harness.expect(spec, b"600\n")
    lines = (await harness.output(spec))[0].decode().splitlines()
    assert lines[0].startswith("uid=1000(app) gid=1000(app)")
    assert {"2000(extra)", "2001"} <= set(lines[0].split("groups=")[1].split(","))
    assert {"COLOUR=blue", "EMPTY=", "ODD=a b=c", "HOME=/home/app", "HOSTNAME=web-1"} <= set(lines)
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)
    assert "/made/for it" in lines and "web-1" in lines

    for user, wanted in (
        ("", "uid=0(root) gid=0(root)"),
        ("1000", "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)"),
        ("4711", "uid=4711 gid=0(root)"),
        ("app:tty", "uid=1000(app) gid=5(tty)"),
        ("12:34", "uid=12 gid=34"),
    ):
        got = await harness.exec(spec, "id", user=user)
        assert got.stdout.decode().startswith(wanted)
    got = await harness.exec(
        spec, "sh", "-c", "pwd; echo $WHAT; echo $HOME; ulimit -n", cwd="/tmp", env=("WHAT=x y",)
    )
    assert got.stdout == b"/tmp\nx y\n/root\n600\n"


async def test_files_and_mounts(harness: Harness, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.1.2.3 db\n")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 10.1.2.1\n")
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    shared, fixed = tmp_path / "shared", tmp_path / "fixed"
    for folder in (shared, fixed):
        folder.mkdir()
        (folder / "there").write_text("from the host\n")
    script = """
        cat /etc/hosts /etc/resolv.conf /run/secrets/key /shared/there /fixed/there
        stat -c '%a %u:%g' /run/secrets/key
        echo inside > /shared/made && echo shared
        touch /fixed/made 2>/dev/null || echo fixed
        touch /root/x 2>/dev/null || echo root
        touch /scratch/x && stat -c %a /scratch && df -k /scratch | tail -1 | awk '{print $2}'
        df -k /dev/shm | tail -1 | awk '{print $2}'
        for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done
    """
    spec = harness.shell(
        script,
        security=Security(readonly_rootfs=True),
        resources=Resources(shm_size=8 << 20),
        files=(
            GuestFile(target="/etc/hosts", source=hosts),
            GuestFile(target="/etc/resolv.conf", source=resolv),
            GuestFile(target="/run/secrets/key", source=secret, mode=0o440, uid=7, gid=8),
        ),
        mounts=(
            Mount(kind=MountKind.BIND, target="/shared", source=shared),
            Mount(kind=MountKind.BIND, target="/fixed", source=fixed, readonly=True),
            Mount(kind=MountKind.TMPFS, target="/scratch", size=4 << 20, mode=0o750),
        ),
    )
    got = await harness.run(spec)
    assert got.stderr == b""
    assert got.stdout.decode().splitlines() == [
        "10.1.2.3 db",
        "nameserver 10.1.2.1",
        "hush",
        "from the host",
        "from the host",
        "440 7:8",
        "shared",
        "fixed",
        "root",
        "750",
        "4096",
        "8192",
    ]
    assert (shared / "made").read_text() == "inside\n"


async def test_a_program_of_another_processor(harness: Harness, tmp_path: Path) -> None:
    """It is said, by an error or in the log."""
    foreign = tmp_path / "foreign"
    program = bytearray((harness.image.folder / "bin/busybox").read_bytes())
    program[18:20] = (183 if program[18] != 183 else 62).to_bytes(2, "little")  # e_machine
    foreign.write_bytes(program)
    placed = (GuestFile(target="/foreign", source=foreign, mode=0o755),)
    foreign.chmod(0o755)
    spec = harness.spec("/foreign", files=placed)
    try:
        got = await harness.run(spec)
    except CommandNotRunnable as error:
        assert "exec format error" in f"{error.brief} {error.details}"
    else:
        assert got.status != 0 and b"xec format error" in got.stderr


async def test_capabilities_are_dockers(harness: Harness) -> None:
    script = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    got = (await harness.run(harness.shell(script))).stdout.split()
    assert got[:4] == [b"CapBnd:", b"00000000a80425fb", b"CapEff:", b"00000000a80425fb"] or got[
        :4
    ] == [b"CapEff:", b"00000000a80425fb", b"CapBnd:", b"00000000a80425fb"]
    limited = Security(cap_drop=("ALL",), cap_add=("NET_ADMIN",), no_new_privileges=True)
    got = (await harness.run(harness.shell(script, security=limited))).stdout.split()
    assert got[got.index(b"CapBnd:") + 1] == b"0000000000001000"
    assert got[got.index(b"NoNewPrivs:") + 1] == b"1"


async def test_much_output_is_whole(harness: Harness) -> None:
    """100 MB through the log (of a micro VM 4), binary bytes too; times never go backwards."""
    size = 100 << 20 if harness.runtime.capabilities.shares_kernel else 4 << 20
    text = "0123456789" * 20
    spec = harness.shell(
        f"yes {text} | head -c {size}; printf '\\000\\377\\r\\n\\001' >&2; printf end"
    )
    got = await harness.run(spec)
    line = text.encode() + b"\n"
    wanted = (line * (size // len(line) + 1))[:size] + b"end"
    assert hashlib.sha256(got.stdout).digest() == hashlib.sha256(wanted).digest()
    assert got.stderr == b"\x00\xff\r\n\x01"
    last = {1: 0, 2: 0}
    async for batch in logs.read_batches(spec.log):
        for piece in batch:
            assert piece.time_ns >= last[piece.stream]
            last[piece.stream] = piece.time_ns


@pytest.mark.fake
async def test_exec(harness: Harness) -> None:
    spec = await harness.start(harness.spec("sleep", "1000", init=True))

    got = await harness.exec(spec, "sh", "-c", "echo out; echo err >&2; exit 42")
    assert got == (42, b"out\n", b"err\n")
    data = os.urandom(3 << 20 if harness.runtime.capabilities.shares_kernel else 200_000)
    assert await harness.exec(spec, "cat", input=data) == (0, data, b"")
    assert (await harness.exec(spec, "sh", "-c", "kill -9 $$")).status == 137

    count = 20 if harness.runtime.capabilities.shares_kernel else 5
    many = await asyncio.gather(
        *(harness.exec(spec, "sh", "-c", f"echo {n}; exit {n}") for n in range(count))
    )
    assert many == [(n, b"%d\n" % n, b"") for n in range(count)]

    session = await harness.runtime.exec(spec.id, Process(argv=("sleep", "1000")))
    assert session.pid > 0
    await session.kill(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        assert await session.wait() == 128 + signal.SIGTERM
    await session.kill(signal.SIGTERM)
    await session.close()


async def test_exec_is_slowed_by_its_own_reader_only(harness: Harness) -> None:
    spec = await harness.start(harness.spec("sleep", "1000"))
    slow = await harness.runtime.exec(spec.id, Process(argv=("yes",)))
    first = await slow.read()
    assert first is not None
    quick = await harness.exec(spec, "echo", "quick")
    assert quick.stdout == b"quick\n"
    await slow.kill(signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        assert await slow.wait() == 137
        await read_all(slow)
    await slow.close()


async def test_exec_left_alone_goes_on(harness: Harness) -> None:
    """A child that keeps the output open does not keep the session; one without a reader runs."""
    spec = await harness.start(harness.spec("sleep", "1000"))
    async with asyncio.timeout(DEADLINE):
        got = await harness.exec(spec, "sh", "-c", "sleep 500 & echo started")
    assert got == (0, b"started\n", b"")
    session = await harness.runtime.exec(
        spec.id, Process(argv=("sh", "-c", "yes | head -c 1000000; echo done > /tmp/mark"))
    )
    await session.close()
    async with asyncio.timeout(DEADLINE):
        assert await session.wait() == 0
    assert (await harness.exec(spec, "cat", "/tmp/mark")).stdout == b"done\n"


async def test_exec_terminal(harness: Harness) -> None:
    spec = await harness.start(harness.spec("sleep", "1000"))
    process = Process(argv=("sh",), tty=True, stdin=True, size=(31, 71), env=("PS1=> ",))
    session = await harness.runtime.exec(spec.id, process)
    await session.write(b"stty size; tty\n")
    assert b"/dev/pts/" in await read_until(session, b"/dev/pts/")
    await session.resize(45, 150)
    await session.write(b"stty size\n")
    await read_until(session, b"45 150")
    # what tells that it runs is itself the program in the foreground, which ^C is for
    await session.write(b"sh -c \"echo be''gun; exec sleep 500\"\n")
    await read_until(session, b"begun")
    await session.write(b"\x03")
    await session.write(b"echo status $?\n")
    await read_until(session, b"status 130")
    await session.write(b"exit 11\n")
    async with asyncio.timeout(DEADLINE):
        await read_all(session)
        assert await session.wait() == 11
    await session.close()


async def test_usage_and_processes(harness: Harness) -> None:
    spec = await harness.start(
        harness.spec(
            "sh", "-c", "echo up; exec sleep 1000", resources=Resources(memory=256 << 20, pids=50)
        )
    )
    await harness.expect(spec, b"up\n")
    usage = await harness.runtime.usage(spec.id)
    assert usage.cpu_ns > 0 and usage.pids >= 1
    assert 0 < usage.memory < 256 << 20 and usage.memory_limit > 0 and usage.memory_stats
    titles, rows = await harness.runtime.processes(spec.id, "-ef")
    assert "PID" in titles
    assert any("sleep 1000" in " ".join(row) for row in rows)
    assert all(len(row) == len(titles) for row in rows)


async def test_pids_limit(harness: Harness) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 500 & done; echo all"
    spec = harness.shell(script, resources=Resources(pids=5))
    got = await harness.run(spec)
    assert b"all" not in got.stdout or b"fork" in got.stderr


async def test_update(harness: Harness) -> None:
    if not harness.runtime.capabilities.live_update:
        pytest.skip("this runtime cannot change limits")
    spec = await harness.start(
        harness.spec("sleep", "1000", resources=Resources(memory=64 << 20, pids=20))
    )
    for memory in (32 << 20, 128 << 20):
        await harness.runtime.update(spec.id, Resources(memory=memory, pids=30, cpus=0.5))
        usage = await harness.runtime.usage(spec.id)
        assert (usage.memory_limit, usage.pids_limit) == (memory, 30)


@pytest.mark.fake
async def test_exec_of_a_dead_one(harness: Harness) -> None:
    spec = await harness.start(harness.spec("true"))
    await harness.wait(spec)
    with pytest.raises(Conflict):
        await harness.runtime.exec(spec.id, Process(argv=("true",)))
