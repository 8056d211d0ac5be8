"""The toolbox's disk: what a guest asks is hostile."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from gemel.errors import Failed
from gemel.runtime.microvm.debugging import READ_MOST, Requests, answer

REQUEST = struct.Struct(">II8sQI")


def ask(kind: int, offset: int, length: int, magic: int = 0x25609513) -> bytes:
    return REQUEST.pack(magic, kind, b"12345678", offset, length)


def test_questions_come_in_any_pieces() -> None:
    requests = Requests()
    whole = ask(0, 4096, 512) + ask(2, 0, 0)
    found = [one for n in range(len(whole)) for one in requests.feed(whole[n : n + 1])]
    assert found == [(0, b"12345678", 4096, 512), (2, b"12345678", 0, 0)]


@pytest.mark.parametrize(
    "hostile", [ask(0, 0, 1, magic=1), ask(0, 0, READ_MOST + 1), ask(1, 0, 4096), ask(9, 0, 0)]
)
def test_what_is_none_ends_it(hostile: bytes) -> None:
    with pytest.raises(Failed):
        Requests().feed(hostile)


def test_answers(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"a" * 5000)
    fd = os.open(path, os.O_RDONLY)
    try:
        head = struct.pack(">II8s", 0x67446698, 0, b"12345678")
        # the last block is padded
        assert answer(fd, 8192, (0, b"12345678", 4096, 4096)) == head + b"a" * 904 + bytes(3192)
        beyond = answer(fd, 8192, (0, b"12345678", 8192, 4096))
        assert struct.unpack_from(">I", beyond, 4)[0] == 22 and len(beyond) == 16
        assert answer(fd, 8192, (3, b"12345678", 0, 0)) == head
    finally:
        os.close(fd)
