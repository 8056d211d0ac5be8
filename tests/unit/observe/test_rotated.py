"""Replaced logs are kept, found again, and read as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemel.observe import logs, rotated
from tests.unit.observe.test_logs import collect, record, texts


def replace(log: Path, content: bytes) -> None:
    """As conmon and the relay do it."""
    fresh = log.with_name("log.new")
    fresh.write_bytes(content)
    os.replace(fresh, log)


def numbered(first: int, count: int) -> bytes:
    return b"".join(record(n, b"%d" % n) for n in range(first, first + count))


def rotate(log: Path, times: int, files: int) -> None:
    log.write_bytes(numbered(0, 10))
    rotated.keep(log, files)
    for n in range(1, times + 1):
        replace(log, numbered(10 * n, 10))
        rotated.keep(log, files)


def lines(first: int, after: int) -> list[bytes]:
    return [b"%d\n" % n for n in range(first, after)]


async def test_old_files_are_read_before_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rotate(log, 4, files=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.0", "log.1", "log.2"]
    assert texts(await collect(log)) == lines(20, 50)
    assert texts(await collect(log, tail=3)) == lines(47, 50)
    assert texts(await collect(log, tail=15)) == lines(35, 50)
    assert texts(await collect(log, tail=100)) == lines(20, 50)


async def test_between_replacement_and_keeping(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rotate(log, 1, files=3)
    replace(log, numbered(20, 5))  # the engine has not seen it yet
    assert texts(await collect(log)) == lines(0, 25)
    assert texts(await collect(log, tail=7)) == lines(18, 25)


async def test_one_file_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rotate(log, 3, files=1)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert texts(await collect(log)) == lines(30, 40)


async def test_a_slow_reader_goes_on_with_the_next_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(numbered(0, 10))
    rotated.keep(log, 5)
    batches = logs.read_batches(log)
    got = texts(await anext(batches))
    for n in (1, 2, 3):
        replace(log, numbered(10 * n, 10))
        rotated.keep(log, 5)
    async for batch in batches:
        got += texts(batch)
    assert got == lines(0, 40)


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rotate(log, 3, files=4)
    os.utime(log.with_name("log.3"), (1, 1))
    rotated.sweep(log, 4)
    assert not log.with_name("log.3").exists()
    rotated.sweep(log, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.0", "log.1"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (rotated.SIZE, rotated.FILES)),
        ({"max-size": "10m"}, (10 << 20, 1)),
        ({"max-size": "1.5k", "max-file": "3"}, (1536, 3)),
        ({"max-size": "-1"}, (0, 1)),
        ({"max-file": "3"}, (rotated.SIZE, 3)),
        ({"max-size": "rubbish", "max-file": "x"}, (0, 1)),
        ({"max-file": "99999"}, (rotated.SIZE, rotated.MOST_FILES)),
    ],
)
def test_limits(options: dict[str, str], expected: tuple[int, int]) -> None:
    assert rotated.limits(options) == expected
