"""The relay with guests and VMMs that may do anything, under sanitizers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemel.errors import Conflict, GemelError
from gemel.host import memfile
from gemel.host.run import run
from gemel.runtime.microvm import channel, relay
from gemel.runtime.microvm.protocol import (
    FIRST_EXEC,
    FromGuest,
    Record,
    ToGuest,
    encode,
    encode_records,
    message,
)
from tests.conformance.conftest import image as image
from tests.system.relayfake import DEADLINE, Fake, channel_end
from tests.system.relayfake import fake as fake
from tests.system.relayfake import sanitized as sanitized

pytestmark = pytest.mark.root


async def test_output_sessions_and_exit(fake: Fake) -> None:
    assert (await fake.start("echo")).startswith("started ")
    first = await channel.attach(fake.folder)
    second = await channel.attach(fake.folder)
    await first.write(b"to all\n")
    for stream in (first, second):
        async with asyncio.timeout(DEADLINE):
            while (told := await stream.read()) != (1, b"to all\n"):
                assert told is not None  # what was said before, if it was not read yet
    frames = list(message(FIRST_EXEC, ToGuest.EXEC, [("arg", "y")]))
    programs = await asyncio.gather(*(channel.execute(fake.folder, frames) for _ in range(3)))
    assert len({program.pid for program in programs}) == 3
    data = os.urandom(700_000)
    writer = asyncio.create_task(programs[0].write(data))
    got = b""
    async with asyncio.timeout(DEADLINE):
        while len(got) < len(data):
            piece = await programs[0].read()
            assert piece is not None
            got += piece[1]
        await writer
    assert got == data
    for program in programs:
        await program.kill(9)
        async with asyncio.timeout(DEADLINE):
            assert await program.wait() == 9
        await program.close()
    await second.close()
    await fake.tell(signal.SIGTERM)
    ended = await fake.end()
    assert (ended.status, ended.error, ended.oom) == (143, "", False)
    async with asyncio.timeout(DEADLINE):
        assert await first.read() is None
    await first.close()
    lines = [line.split(" ", 3)[1:] for line in fake.log.read_text().splitlines()]
    assert lines[0][:2] == ["stdout", "F"] and lines[0][2].endswith("time=1")
    assert lines[1:4] == [
        ["stdout", "P", "no end"],
        ["stderr", "F", " of line"],
        ["stdout", "F", "to all"],
    ]


async def test_a_log_is_begun_anew(fake: Fake) -> None:
    await fake.start("much", "1000000", extra=(("log-size", "200000"),))
    assert (await fake.end()).status == 0
    assert 0 < fake.log.stat().st_size < 400_000


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (encode(1, 70, struct.pack("<IB", 256, 0)), "exit"),
        (encode(1, 70, b"\0"), "exit"),
        (encode(0, 65, struct.pack("<I", 1)), "greeting"),
        (encode(0, 66), "ready"),
        (encode(1, 67, b"\0" * 4), "start"),
        (encode(1, 71, b"\1no"), "error"),
        (encode(2, 68, b"x"), "session"),
        (encode(1, 72, b"\xff\xff\xff\x7f"), "credit"),
        (encode(1, 1, b""), "frame"),
        (encode(0, 78, bytes(8)), "time"),
        (struct.pack("<IIBBH", 65537, 0, 75, 0, 0), "frame"),
        (struct.pack("<IIBBH", 0, 0, 75, 0, 1), "frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_guest_that_breaks_a_rule_is_ended(fake: Fake, sent: bytes, words: str) -> None:
    assert (await fake.start("say", sent.hex())).startswith("started ")
    ended = await fake.end()
    assert ended.status == 137
    assert "broke the protocol" in ended.error and words in ended.error


@pytest.mark.parametrize(("mode", "told"), [("late", True), ("punctual", False)])
async def test_a_clock_that_is_off_is_set(fake: Fake, mode: str, told: bool) -> None:
    """It is asked for after each pause."""
    await fake.start(mode)
    stream = await channel.attach(fake.folder)
    for request in (ToGuest.FREEZE, ToGuest.THAW):
        await channel.ask(fake.folder, request, FromGuest.FROZEN)
    async with asyncio.timeout(DEADLINE):
        seen = b""
        # it may be asked for the second time before it has been set
        while seen.count(b"asked") < 2 or (told and b"time" not in seen):
            piece = await stream.read()
            assert piece is not None
            seen += piece[1]
    assert (b"time" in seen) == told
    await stream.close()


async def test_a_flood_is_ended(fake: Fake) -> None:
    await fake.start("flood")
    frames = list(message(FIRST_EXEC, ToGuest.EXEC, [("arg", "y")]))
    session = await channel.execute(fake.folder, frames)
    assert "more output than it was granted" in (await fake.end()).error
    async with asyncio.timeout(DEADLINE):
        assert await session.wait() == 137
    await session.close()


@pytest.mark.parametrize("seed", range(24))
async def test_fuzz(fake: Fake, seed: int) -> None:
    answer = await fake.start("fuzz", str(seed))
    if answer.startswith("started "):
        assert (await fake.end()).status in range(256)
    else:
        assert answer.startswith("error failed ")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("hang", "error timeout the guest did not come up within 300 ms, tried 2 times"),
        ("unready", "error timeout the guest was not set up within 300 ms"),
        ("refuse 1", 'error notfound exec: "x": not so [31m'),
        ("refuse 2", 'error notrunnable exec: "x": not so [31m'),
    ],
)
async def test_starts_that_fail_leave_nothing(fake: Fake, mode: str, words: str) -> None:
    short: tuple[Record, ...] = (("config-ms", "300"),) if mode == "unready" else ()
    if mode == "hang":
        short = (("boot-ms", "300"),)
    answer = await fake.start(*mode.split(), extra=short)
    assert answer.strip() == words
    fake.check()
    assert not (fake.folder / "exit").exists() and not (fake.folder / "relay.sock").exists()


async def test_a_boot_that_burns_cpu_is_tried_again(fake: Fake) -> None:
    answer = await fake.start("spin", extra=(("boot-cpu-ms", "300"), ("boot-ms", "2000")))
    assert "tried 2 times" in answer
    assert "boots again" in (fake.folder / "guest.log").read_text()


async def test_a_vmm_that_cannot_run(fake: Fake) -> None:
    answer = await fake.start("x", extra=(("disk", "4", "/no/such/disk", "ro"),))
    assert answer.startswith("error failed cannot open /no/such/disk")


async def test_a_vmm_that_ends_by_itself(fake: Fake) -> None:
    await fake.start("leave")
    ended = await fake.end()
    assert ended.status == 137
    assert "ended by itself" in ended.error and "it was the fake" in ended.error


async def test_a_guest_that_does_not_power_off(fake: Fake) -> None:
    await fake.start("deaf")
    ended = await fake.end()
    assert (ended.status, ended.oom, ended.error) == (5, True, "")


async def test_who_gives_up_the_start_ends_the_vm(fake: Fake) -> None:
    reader, writer = os.pipe()
    input = encode_records(fake.records(["hang"], [("boot-ms", "60000")]))
    await run([str(fake.program), str(writer)], input=input, pass_fds=[writer])
    os.close(writer)
    os.close(reader)
    async with asyncio.timeout(DEADLINE):
        await relay.ended(fake.folder)
    fake.check()


async def test_wrong_orders_are_refused(sanitized: Path) -> None:
    for input in (b"", b"\1\0", b"\1\0\xff\xff\xff\xff", encode_records([("nonsense", "x")])):
        reader, writer = os.pipe()
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # the process ends at once
        command = [str(sanitized), str(writer)]
        done = await run(command, input=input, pass_fds=[writer], check=False, env=env)
        os.close(writer)
        os.close(reader)
        assert done.status == 2 and b"what to run" in done.stderr


async def test_clients_that_break_rules_are_dropped(fake: Fake) -> None:
    await fake.start("echo")
    for sent in (b"\xff" * 12, encode(5, 99), encode(0, 3), encode(1, ToGuest.STDIN, b"x")):
        async with asyncio.timeout(DEADLINE):
            reader, writer = await channel.connect(fake.folder)
            writer.write(sent)
            assert await reader.read() == b""
            writer.close()
    stream = await channel.attach(fake.folder)
    await stream.write(b"still there\n")
    async with asyncio.timeout(DEADLINE):
        assert await stream.read() == (1, b"still there\n")
    await stream.close()


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("good", ""),
        ("plugged", ""),
        ("unplugged", "takes no device while it runs"),
        ("mute", "did not answer"),
        ("dies", "ended by itself"),
        ("refused", "refuses"),
        ("endless", "without an end"),
        ("unready", "not set up"),
        ("greets", "greeting"),
        ("noise", "a frame that is none"),
        ("failed-config", "no disk"),
    ],
)
async def test_a_clone_that_fails_is_booted_cold(fake: Fake, mode: str, why: str) -> None:
    files = memfile.make("memory", 4096), memfile.make("state")
    extra: tuple[Record, ...] = (
        ("memory", "12", *map(str, files)),
        ("qmp", "13"),
        ("clone-ms", "1500" if mode == "mute" else "30000"),
        ("clone-run", "/usr/bin/python3", "-I", "-S", "/guest.py", "clone", mode),
    )
    if mode == "unready":
        extra += (("config-ms", "3000"),)
    if "plugged" in mode:
        extra += (("plug", "plug this\n"),)
    try:
        answer = await fake.start("echo", extra=extra, passed=files)
    finally:
        for fd in files:
            os.close(fd)
    assert answer.startswith("started "), answer
    word, reason = relay.read_boot(fake.folder)
    assert (word, why in reason) == ("cold" if why else "cloned", True), reason
    await fake.tell(15)
    assert (await fake.end()).status == 128 + 15
    fake.check()


@contextlib.contextmanager
def copy_files(fake: Fake, *mode: str) -> Iterator[tuple[tuple[Record, ...], tuple[int, ...]]]:
    """What a copy of a running service needs: records, and descriptors."""
    files = memfile.make("memory", 4096), memfile.make("state")
    for name in ("disk", "warm"):
        (fake.folder / name).write_text(name)
        os.chown(fake.folder / name, fake.user, fake.user)
    identity = b"".join(message(0, ToGuest.IDENTITY, [("hostname", "x", "")]))
    hook = b"".join(message(FIRST_EXEC, ToGuest.EXEC, [("arg", "hook"), ("hook",)]))
    extra: tuple[Record, ...] = (
        ("memory", "12", *map(str, files)),
        ("qmp", "13"),
        ("clone-ms", "30000"),
        ("disk", "4", str(fake.folder / "disk"), "rw"),
        ("warm-disk", str(fake.folder / "warm")),
        ("identity", identity),
        ("hook", hook),
        ("clone-run", "/usr/bin/python3", "-I", "-S", "/guest.py", *mode),
    )
    try:
        yield extra, files
    finally:
        for fd in files:
            os.close(fd)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("good", ""),
        ("hookless", ""),
        ("unlinked", "refuses"),
        ("failing", "its hook ended with status 3"),
        ("broken", "its hook cannot be run"),
        ("early", "a start that was not asked for"),
    ],
)
async def test_a_copy_of_a_running_service(fake: Fake, mode: str, why: str) -> None:
    with copy_files(fake, "copy", mode) as (extra, files):
        answer = await fake.start("echo", extra=extra, passed=files)
    assert answer.startswith("started "), answer
    word, reason = relay.read_boot(fake.folder)
    assert (word, why in reason) == ("cold" if why else "warm", True), reason
    # the copy's disk is the instance's if it goes on, and is gone if not
    assert (fake.folder / "disk").read_text() == ("disk" if why else "warm")
    assert not (fake.folder / "warm").exists()
    await fake.tell(15)
    assert (await fake.end()).status == 128 + 15
    said = fake.log.read_text()
    assert "original" not in said
    assert ("thawed" in said) == (not why)
    assert ("hook" in said) == (mode in ("good", "failing"))


@pytest.mark.parametrize("seed", range(8))
async def test_fuzz_of_copies(fake: Fake, seed: int) -> None:
    with copy_files(fake, "copyfuzz", str(seed)) as (extra, files):
        answer = await fake.start("echo", extra=extra, passed=files)
    if answer.startswith("started "):
        await channel_end(fake)
        assert fake.check() is None
    else:
        assert answer.startswith("error ")


async def save(fake: Fake, targets: tuple[int, int, int]) -> None:
    """A snapshot; that the service goes on after an earlier attempt is waited for."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return await channel.save(fake.folder, targets)
        except GemelError as error:
            if "another snapshot" not in f"{error.brief} {error.details}":
                raise
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("good", ""),
        ("slow", ""),
        ("restless", "do not stand still"),
        ("failing", "refuses"),
        ("dies", "does not run"),
        ("noise", ""),
    ],
)
async def test_a_snapshot_of_a_running_service(fake: Fake, mode: str, why: str) -> None:
    memory, state = memfile.make("memory", 8192), memfile.make("state")
    os.pwrite(memory, b"kept", 4096)
    (fake.folder / "disk").write_bytes(b"layer" * 1000)
    os.chown(fake.folder / "disk", fake.user, fake.user)
    extra: tuple[Record, ...] = (
        ("memory", "12", str(memory), str(state)),
        ("qmp", "13"),
        ("clone-ms", "30000"),
        ("source",),
        ("disk", "4", str(fake.folder / "disk"), "rw"),
        ("clone-run", "/usr/bin/python3", "-I", "-S", "/guest.py", "source", mode),
    )
    answer = await fake.start("echo", extra=extra, passed=(memory, state))
    assert answer.startswith("started "), answer
    for _ in range(2):
        targets = memfile.make("to", 8192), memfile.make("to-state", 4096), memfile.make("disk")
        error: Exception | None = None
        try:
            await save(fake, targets)
            assert os.pread(targets[0], 8, 4096) == b"kept" + bytes(4)
            assert os.pread(targets[1], 7, 0) == b"devices"
            assert os.pread(targets[2], 10000, 0) == b"layer" * 1000
            for fd in targets[:2]:
                memfile.seal(fd)
        except GemelError as found:
            error = found
        finally:
            for fd in targets:
                os.close(fd)
        assert mode == "noise" or bool(error) == bool(why)
        if why:
            assert why in (f"{error.brief} {error.details}" if error else "")
    for fd in (memory, state):
        os.close(fd)
    if mode not in ("dies", "noise"):
        await fake.tell(15)
        assert (await fake.end()).status == 128 + 15
        assert fake.log.read_text().count("goes on") == 2


async def test_who_asks_for_a_snapshot_may_go(fake: Fake) -> None:
    memory, state = memfile.make("memory", 4096), memfile.make("state")
    (fake.folder / "disk").touch()
    os.chown(fake.folder / "disk", fake.user, fake.user)
    extra: tuple[Record, ...] = (
        ("memory", "12", str(memory), str(state)),
        ("qmp", "13"),
        ("clone-ms", "30000"),
        ("source",),
        ("disk", "4", str(fake.folder / "disk"), "rw"),
        ("clone-run", "/usr/bin/python3", "-I", "-S", "/guest.py", "source", "good"),
    )
    await fake.start("echo", extra=extra, passed=(memory, state))
    targets = struct.pack("<III", memory, state, state)
    _, writer = await channel.connect(fake.folder)
    writer.write(encode(0, channel.SAVE, targets))
    await writer.drain()
    writer.close()
    async with asyncio.timeout(DEADLINE):
        while b"goes on" not in fake.log.read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    os.close(memory)
    os.close(state)
    await fake.tell(15)
    assert (await fake.end()).status == 128 + 15


async def test_a_snapshot_that_cannot_be(fake: Fake) -> None:
    """Of a VM that was not made for it, or into what is no descriptor."""
    await fake.start("echo")
    with pytest.raises(Conflict, match="cannot be saved"):
        await channel.save(fake.folder, (0, 1, 2))
    frames = encode(0, channel.SAVE, b"short")
    await channel.tell(fake.folder, frames)
    stream = await channel.attach(fake.folder)
    await stream.write(b"still there\n")
    async with asyncio.timeout(DEADLINE):
        assert await stream.read() == (1, b"still there\n")
    await stream.close()


async def test_changes_of_shared_folders_are_told(fake: Fake) -> None:
    folder, outside = fake.folder / "shared", fake.folder / "outside"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "node_modules").mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    share = ("share", "64", str(folder), "", "rw", "/usr/bin/sleep", "600")
    assert (await fake.start("echo", extra=(share, ("watch", "share0"))))[:7] == "started"

    def told() -> str:
        return fake.log.read_text()

    async def until(path: str, text: str) -> None:
        """Writes until it has been told: what is watched is found out in the background."""
        async with asyncio.timeout(DEADLINE):
            while f"changed share0:{text}\n" not in told():
                (folder / path).write_text(str(time.monotonic()))
                await asyncio.sleep(0.2)

    await until("deep/er/file", "deep/er/file")
    (folder / "node_modules/x").write_text("x")
    (outside / "secret").write_text("x")
    (folder / "new").mkdir()
    await until("new/in", "new/in")
    (folder / "deep").rename(folder / "moved")
    await until("moved/er/other", "moved/er/other")
    for number in range(1000):
        (folder / f"many{number}").write_text("x")
    await until("last", "last")
    (folder / "last").unlink()
    assert "secret" not in told() and "node_modules/" not in told()
    assert "deep/er/other" not in told()
    await fake.tell(15)
    assert (await fake.end()).status == 128 + 15
    fake.check()
    async with asyncio.timeout(DEADLINE):
        # the watcher, or the relay that has only just closed its files
        while _inside(fake.folder):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _inside(folder: Path) -> list[str]:
    """Processes that have it as their working folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cwd").readlink() == folder:
                found.append(pid)
    return found


async def test_a_template_is_saved_at_its_greeting(fake: Fake) -> None:
    files = memfile.make("memory", 4096), memfile.make("state")
    extra: tuple[Record, ...] = (
        ("template",),
        ("memory", "12", *map(str, files)),
        ("qmp", "13"),
    )
    try:
        assert (await fake.start("template", "good", extra=extra, passed=files))[:8] == "started "
        assert os.pread(files[1], 100, 0) == b"devices"
        answer = await fake.start("template", "refused", extra=extra, passed=files)
        assert "error" in answer and "refuses" in answer
    finally:
        for fd in files:
            os.close(fd)
    fake.check()
