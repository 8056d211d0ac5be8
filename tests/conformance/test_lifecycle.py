"""Start, end, signals, restart, taking up, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from gemel.errors import (
    CommandNotFound,
    CommandNotRunnable,
    Conflict,
    InvalidInput,
    NotFound,
)
from gemel.model.instance import Resources
from gemel.observe import logs
from tests.conformance.conftest import DEADLINE, Harness, read_all, read_until

pytestmark = pytest.mark.root


@pytest.mark.fake
async def test_output_and_status(harness: Harness) -> None:
    script = "echo out; printf partial; echo err >&2; exit 3"
    spec = harness.shell(script)
    before = asyncio.get_running_loop()
    begun = time.time()
    assert await harness.run(spec) == (3, b"out\npartial", b"err\n")
    ended = await harness.wait(spec)  # again, and by many at once
    assert not ended.oom and not ended.error
    assert (await asyncio.gather(*(harness.wait(spec) for _ in range(5)))) == [ended] * 5
    assert before is asyncio.get_running_loop()
    lines = [line async for line in logs.read(spec.log)]
    # the host's clock, whoever's the program is; some kernels' coarse clock is a tick late
    assert all(begun - 0.1 <= line.time_ns / 1e9 <= time.time() for line in lines)
    assert begun - 0.1 <= ended.finished_at <= time.time()
    await harness.runtime.cleanup(spec.id)
    with pytest.raises(NotFound):
        await harness.wait(spec)


@pytest.mark.fake
async def test_signals(harness: Harness) -> None:
    trap = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    spec = await harness.start(harness.shell(trap))
    await harness.expect(spec, b"ready\n")
    await harness.runtime.kill(spec.id, signal.SIGTERM)
    assert (await harness.wait(spec)).status == 7
    with pytest.raises(Conflict):
        await harness.runtime.kill(spec.id, signal.SIGTERM)

    spec = await harness.start(harness.spec("sleep", "1000", init=True))
    await harness.runtime.kill(spec.id, signal.SIGKILL)
    assert (await harness.wait(spec)).status == 128 + signal.SIGKILL


async def test_init_reaps_and_forwards(harness: Harness) -> None:
    script = "(sleep 0.01 &) ; sleep 0.3; echo ready; exec sleep 1000"
    spec = await harness.start(harness.shell(script, init=True))
    await harness.expect(spec, b"ready\n")
    async with asyncio.timeout(DEADLINE):
        while True:  # a reaper takes its turn
            seen = await harness.exec(spec, "ps", "-o", "pid,stat,comm")
            if b"Z" not in b"".join(line.split()[1] for line in seen.stdout.splitlines()[1:]):
                break
    assert b"sleep" not in seen.stdout.splitlines()[1]  # the init is the first process
    await harness.runtime.kill(spec.id, signal.SIGTERM)
    assert (await harness.wait(spec)).status == 128 + signal.SIGTERM


async def test_a_second_run_finds_what_the_first_wrote(harness: Harness) -> None:
    spec = harness.shell("cat /root/mark 2>/dev/null; echo again >> /root/mark; rm -f /etc/group")
    assert (await harness.run(spec)).stdout == b""
    await harness.runtime.cleanup(spec.id)
    assert (await harness.run(spec)).stdout == b"again\n"
    await harness.runtime.cleanup(spec.id)
    await harness.runtime.remove(spec)
    await harness.runtime.create(spec)
    spec.log.unlink(missing_ok=True)
    assert (await harness.run(spec)).stdout == b""


@pytest.mark.fake
@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        ("nothing-like-it", CommandNotFound, 'exec: "nothing-like-it": executable file not found'),
        ("/bin/nothing", CommandNotFound, 'exec: "/bin/nothing": stat /bin/nothing: no such file'),
        ("/etc/passwd", CommandNotRunnable, 'exec: "/etc/passwd": permission denied'),
    ],
)
async def test_commands_that_cannot_run(
    harness: Harness, command: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words.replace("$", r"\$")):
        await harness.start(harness.spec(command))
    await nothing_left(harness)
    if kind is not CommandNotFound or "/" in command:
        return
    spec = await harness.start(harness.spec("sleep", "1000"))
    for other in ("nothing-like-it", "/etc/passwd", "/etc"):
        with pytest.raises((CommandNotFound, CommandNotRunnable), match=f'exec: "{other}"'):
            await harness.exec(spec, other)


@pytest.mark.fake
async def test_adoption(harness: Harness) -> None:
    """The engine is away while one goes on talking, one ends, and one has ended before."""
    goes_on = await harness.start(
        harness.shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    )
    ends = await harness.start(harness.shell("read line; echo bye; exit 9", stdin=True))
    ended = await harness.start(harness.shell("exit 4"))
    await harness.wait(ended)
    await harness.expect(goes_on, b"5\n")
    stream = await harness.runtime.attach(ends.id)
    await stream.write(b"go\n")
    await harness.successor()

    assert await harness.runtime.adopt(goes_on)
    assert not await harness.runtime.adopt(ended)
    await harness.runtime.adopt(ends)  # whether it still runs is a race
    assert (await harness.wait(ended)).status == 4
    assert (await harness.wait(ends)).status == 9
    assert (await harness.output(ends))[0] == b"bye\n"

    now = len((await harness.output(goes_on))[0].split())
    await harness.expect(goes_on, b"\n%d\n" % (now + 5))
    assert (await harness.exec(goes_on, "echo", "inside")).stdout == b"inside\n"
    assert (await harness.stop(goes_on)).status == 137
    numbers = [int(word) for word in (await harness.output(goes_on))[0].split()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.fake
async def test_attached_before_the_start_nothing_is_missed(harness: Harness) -> None:
    spec = harness.shell("echo first; cat; echo last >&2", stdin=True)
    harness.specs[spec.id] = spec
    await harness.runtime.create(spec)
    stream = await harness.runtime.attach(spec.id)
    reader = asyncio.create_task(read_all(stream))
    await harness.start(spec)
    await stream.write(b"through\n")
    await stream.close_stdin()
    assert await reader == (b"first\nthrough\n", b"last\n")
    await stream.close()

    spec = harness.spec("nothing-like-it")
    stream = await harness.runtime.attach(spec.id)
    with pytest.raises(CommandNotFound):
        await harness.start(spec)
    assert await stream.read() is None


@pytest.mark.fake
async def test_leaving_does_not_end_standard_input(harness: Harness) -> None:
    script = "while read line; do echo got $line; done; echo end"
    spec = await harness.start(harness.shell(script, stdin=True))
    for word in (b"one", b"two"):
        stream = await harness.runtime.attach(spec.id)
        await stream.write(word + b"\n")
        await read_until(stream, b"got " + word)
        await stream.close()
    stream = await harness.runtime.attach(spec.id)
    await stream.close_stdin()
    assert (await read_all(stream))[0] == b"end\n"
    await stream.close()
    assert (await harness.wait(spec)).status == 0


async def test_terminal(harness: Harness) -> None:
    script = 'stty size; trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done'
    spec = harness.shell(script, tty=True, stdin=True, size=(33, 77))
    stream = await harness.runtime.attach(spec.id)
    await harness.start(spec)
    assert b"33 77" in await read_until(stream, b"ready")
    await harness.runtime.resize(spec.id, 40, 120)
    assert b"40 120" in (await read_all(stream))[0]
    await stream.close()
    assert (await harness.wait(spec)).status == 5

    spec = await harness.start(harness.spec("sh", tty=True, stdin=True))
    stream = await harness.runtime.attach(spec.id)
    await stream.write(b"tty; exit 6\n")
    out, err = await read_all(stream)
    assert b"/dev/" in out and err == b""
    assert (await harness.wait(spec)).status == 6


@pytest.mark.fake
async def test_pause(harness: Harness) -> None:
    if not harness.runtime.capabilities.pause:
        pytest.skip("this runtime cannot pause")
    spec = await harness.start(
        harness.shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
    )
    await harness.expect(spec, b"3\n")
    await harness.runtime.pause(spec.id)
    now = await harness.output(spec)
    async with asyncio.timeout(DEADLINE):
        while True:  # what was under way may still arrive
            await asyncio.sleep(0.5)
            before, now = now, await harness.output(spec)
            if now == before:
                break
    with pytest.raises(Conflict):
        await harness.exec(spec, "true")
    await harness.runtime.resume(spec.id)
    await harness.expect(spec, b"\n%d\n" % (len(now[0].split()) + 5))
    await harness.runtime.pause(spec.id)
    assert (await harness.stop(spec)).status == 137


async def test_out_of_memory_is_told(harness: Harness) -> None:
    limit = 160 << 20 if not harness.runtime.capabilities.shares_kernel else 24 << 20
    spec = harness.shell(
        "dd if=/dev/zero of=/dev/null bs=1900M count=1",
        resources=Resources(memory=limit, memory_swap=limit),
    )
    await harness.start(spec)
    ended = await harness.wait(spec)
    assert ended.oom and ended.status != 0


@pytest.mark.fake
async def test_many_in_a_row_leave_nothing(harness: Harness) -> None:
    """A hundred; of micro VMs few, unless GEMEL_TEST_STARTS says how many."""
    few = int(os.environ.get("GEMEL_TEST_STARTS", "3"))
    count = 100 if harness.runtime.capabilities.shares_kernel else few
    descriptors = 0
    for number in range(count):
        if number == 1:  # the first may have made what all others share
            descriptors = _descriptors()
        spec = harness.spec("true")
        assert (await harness.run(spec)).status == 0
        await harness.runtime.cleanup(spec.id)
        await harness.runtime.cleanup(spec.id)
        await harness.runtime.remove(spec)
        assert not spec.layer.exists()
    await nothing_left(harness)
    async with asyncio.timeout(DEADLINE):
        while _descriptors() > descriptors:  # noqa: ASYNC110  what was begun beside them ends
            await asyncio.sleep(0.1)


@pytest.mark.fake
async def test_many_at_once(harness: Harness) -> None:
    count = 10 if harness.runtime.capabilities.shares_kernel else 2
    specs = [harness.shell(f"echo {n}; exit {n}") for n in range(count)]
    got = await asyncio.gather(*(harness.run(spec) for spec in specs))
    assert got == [(n, b"%d\n" % n, b"") for n in range(count)]


@pytest.mark.fake
async def test_wrong_requests(harness: Harness) -> None:
    spec = await harness.start(harness.spec("sleep", "1000"))
    with pytest.raises(Conflict):
        await harness.runtime.start(spec)
    with pytest.raises(InvalidInput):
        await harness.runtime.kill(spec.id, 999)
    with pytest.raises(InvalidInput, match="unable to find user ghost"):
        await harness.exec(spec, "true", user="ghost")
    await harness.stop(spec)
    for work in (
        harness.runtime.exec(spec.id, spec.process),
        harness.runtime.pause(spec.id),
        harness.runtime.usage(spec.id),
    ):
        with pytest.raises(Conflict):
            await work
    with pytest.raises(NotFound):
        await harness.runtime.wait("f" * 64)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def nothing_left(harness: Harness) -> None:
    """Waits until no mount, folder, process or cgroup is: what was killed takes its turn to go."""
    deadline = time.monotonic() + 60
    while left := _left(harness):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


def _left(harness: Harness) -> list[object]:
    run = harness.paths.run
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found: list[object] = [line for line in mounts if str(run) in line]
    with contextlib.suppress(FileNotFoundError):
        found += (run / "instances").iterdir()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            found += [command] if bytes(run) in command else []
    return [*found, *Path("/sys/fs/cgroup").glob(f"*/{harness.paths.cgroup}")]
