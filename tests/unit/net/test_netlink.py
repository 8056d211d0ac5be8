"""The kernel's lists of what changes while it is listed."""

from __future__ import annotations

import struct

import pytest

from gemel.host import netlink
from gemel.host.netlink import GETLINK, NEWLINK, Netlink

DONE, MULTI, INTERRUPTED = 3, 0x2, 0x10


def link(number: int, name: str) -> bytes:
    """RTM_NEWLINK's payload."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 3) + text + b"\0" * (-len(text) % 4)
    return struct.pack("=BBHiII", 0, 0, 1, number, 0, 0) + attribute


class Kernel:
    """A socket to a kernel that has these lists ready, each of them once."""

    def __init__(self, *lists: tuple[int, list[bytes]]) -> None:
        self._lists = list(lists)
        self._answers: list[bytes] = []

    def send(self, data: bytes) -> None:
        _, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
        assert kind == GETLINK
        flags, found = self._lists.pop(0)
        for piece, answer in [*((NEWLINK, one) for one in found), (DONE, bytes(4))]:
            head = struct.pack("=IHHII", 16 + len(answer), piece, MULTI | flags, sequence, 0)
            self._answers.append(head + answer)

    def recv(self, size: int) -> bytes:
        return self._answers.pop(0)


def names(*lists: tuple[int, list[bytes]]) -> list[str]:
    one = object.__new__(Netlink)
    one._socket, one._sequence = Kernel(*lists), 0  # type: ignore[assignment]
    return [found.name for found in one.links()]


def test_a_list_that_was_interrupted_is_asked_for_again() -> None:
    part, whole = [link(1, "lo")], [link(1, "lo"), link(2, "gm-a")]
    assert names((0, whole)) == ["lo", "gm-a"]
    assert names((INTERRUPTED, part), (INTERRUPTED, part), (0, whole)) == ["lo", "gm-a"]


def test_what_never_stands_still_is_listed_as_well_as_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netlink, "_TRIES", 3)
    assert names(*[(INTERRUPTED, [link(1, "lo")])] * 3) == ["lo"]
