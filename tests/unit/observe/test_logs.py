"""Reading logs: nothing lost, nothing twice, whatever happens to the file."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gemel.observe import logs

BASE = 1795870800  # 2026-11-28T13:00:00Z


def record(second: int, text: bytes, stream: str = "stdout", tag: str = "F") -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(BASE + second))
    return f"{stamp}.000000007+00:00 {stream} {tag} ".encode() + text + b"\n"


def append(path: Path, data: bytes, *, hole: int = 0) -> None:
    with open(path, "ab") as file:
        if hole:
            file.truncate(hole)
        file.write(data)


async def collect(path: Path, **options: object) -> list[logs.LogLine]:
    return [line async for line in logs.read(path, **options)]  # type: ignore[arg-type]


def texts(lines: list[logs.LogLine]) -> list[bytes]:
    return [line.data for line in lines]


def test_times_with_zones_and_short_fractions() -> None:
    second = 1_000_000_000
    assert logs.parse_time(b"2026-11-28T13:00:00.000000007+00:00") == BASE * second + 7
    assert logs.parse_time(b"2026-11-28T14:30:00.5+01:30") == BASE * second + second // 2
    assert logs.parse_time(b"2026-11-28T11:00:00-02:00") == BASE * second
    assert logs.parse_time(b"2026-11-28T13:00:00Z") == BASE * second
    assert logs.parse_time(b"yesterday") == -1


async def test_partial_lines_join_to_what_was_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        record(0, b"ab", tag="P") + record(0, b"cd") + record(1, b"", "stderr") + b"torn"
    )
    lines = await collect(log)
    assert texts(lines) == [b"ab", b"cd\n", b"\n"]
    assert [line.stream for line in lines] == [1, 1, 2]


async def test_selection_by_stream_and_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        b"".join(record(n, b"%d" % n, "stderr" if n % 2 else "stdout") for n in range(10))
    )
    second = 1_000_000_000
    assert texts(await collect(log, stdout=False)) == [b"1\n", b"3\n", b"5\n", b"7\n", b"9\n"]
    since, until = (BASE + 3) * second, (BASE + 6) * second + 500
    assert texts(await collect(log, since_ns=since, until_ns=until)) == [
        b"3\n",
        b"4\n",
        b"5\n",
        b"6\n",
    ]
    assert texts(await collect(log, tail=2, stderr=False)) == [b"6\n", b"8\n"]
    assert await collect(tmp_path / "missing") == []


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000)), max_size=12), st.integers(0, 14))
def test_tail_is_the_end_of_the_whole(pieces: list[tuple[bool, int]], count: int) -> None:
    data = b"".join(
        record(n, b"x" * size, tag="P" if partial else "F")
        for n, (partial, size) in enumerate(pieces)
    )
    fd = os.memfd_create("log")
    try:
        os.write(fd, data)
        offset, _ = logs.tail_offset(fd, len(data), count, lambda line: True)
    finally:
        os.close(fd)
    whole = b"".join(line.data for line in logs.parse(data))
    got = b"".join(line.data for line in logs.parse(data[offset:]))
    wanted = b"".join(whole.splitlines(keepends=True)[-count:]) if count else b""
    assert got == wanted


async def test_tail_does_not_read_the_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # a hole of a terabyte before it: reading that would never end
    append(log, b"\n" + b"".join(record(n, b"%d" % n) for n in range(100)), hole=1 << 40)
    async with asyncio.timeout(30):
        assert texts(await collect(log, tail=3)) == [b"97\n", b"98\n", b"99\n"]


async def test_follow_over_replacement_and_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = asyncio.Event()
    got: list[bytes] = []
    arrived = asyncio.Semaphore(0)

    async def follow() -> None:
        async for line in logs.read(log, follow=True, ended=ended):
            got.append(line.data)
            arrived.release()

    async def until(count: int) -> None:
        async with asyncio.timeout(30):
            while len(got) < count:
                await arrived.acquire()

    reader = asyncio.create_task(follow())
    await asyncio.sleep(0)
    log.write_bytes(record(0, b"first"))
    await until(1)
    append(log, record(1, b"second"))
    await until(2)
    append(log, record(2, b"last of the old"))
    fresh = tmp_path / "log.tmp"
    fresh.write_bytes(record(3, b"first of the new"))
    os.replace(fresh, log)
    await until(4)
    log.write_bytes(b"")  # cut off
    append(log, record(4, b"x"))
    await until(5)
    append(log, record(5, b"very last"))
    ended.set()
    async with asyncio.timeout(30):
        await reader
    assert got == [
        b"first\n",
        b"second\n",
        b"last of the old\n",
        b"first of the new\n",
        b"x\n",
        b"very last\n",
    ]


async def test_a_follower_that_is_cancelled_lets_go(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(record(0, b"x"))
    gc.collect()  # what earlier tests left is not to go meanwhile
    before = set(os.listdir("/proc/self/fd"))
    started = asyncio.Event()

    async def follow() -> None:
        async for _ in logs.read(log, follow=True):
            started.set()

    task = asyncio.create_task(follow())
    async with asyncio.timeout(30):
        await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(os.listdir("/proc/self/fd")) == before


async def test_the_tail_is_that_of_the_call(tmp_path: Path) -> None:
    """What is written between the call and the first read is new, and told of."""
    log = tmp_path / "log"
    log.write_bytes(record(0, b"old"))
    batches = logs.read_batches(log, tail=0, follow=True)
    append(log, record(1, b"new"))
    async with asyncio.timeout(30):
        assert texts(await anext(batches)) == [b"new\n"]
    await batches.aclose()
    batches = logs.read_batches(tmp_path / "later", tail=0, follow=True)
    append(tmp_path / "later", record(1, b"first"))
    async with asyncio.timeout(30):
        assert texts(await anext(batches)) == [b"first\n"]
    await batches.aclose()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["2026-01-02T03:04:05", "2026-01-02T03:04:06"]),
            st.sampled_from([".000000001", ".123456789", ".5", "", ".12345678x"]),
            st.sampled_from(["+00:00", "+00:00", "Z", "+01:00"]),
            st.sampled_from(["stdout", "stderr", "stdin"]),
            st.sampled_from(["F", "P", "F:x", "P:x", ""]),
            st.binary(max_size=4).map(lambda text: text.replace(b"\n", b"")),
        ),
        max_size=8,
    )
)
def test_lines_are_told_apart_the_same_alone_and_in_company(
    parts: list[tuple[str, str, str, str, str, bytes]],
) -> None:
    """Most lines take a short cut that leans on the line before them."""
    lines = [f"{a}{b}{c} {d} {e} ".encode() + f + b"\n" for a, b, c, d, e, f in parts]
    alone = [found for line in lines for found in logs.parse(line)]
    together = logs.parse(b"".join(lines))
    assert [(one.stream, one.data) for one in together] == [(one.stream, one.data) for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.time_ns == other.time_ns or other.time_ns == 0  # torn: time of the one before
