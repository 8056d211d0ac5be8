"""Packets as they pass by: a packet socket whose ring the kernel fills (TPACKET_V3).

What is captured is a copy: whoever sends and receives does not wait for it. If
the ring is full the kernel drops the copy and counts it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from gemel.errors import Failed, Unavailable

#: The kernel hands over a block when it is full, or after RETIRE milliseconds, whatever it holds:
#: so the ring lasts for BLOCKS * RETIRE (5 s) on a machine that is too busy to let us read, and a
#: block must hold the largest packet.
BLOCK, BLOCKS, RETIRE = 1 << 17, 128, 40
SNAP = 1 << 18

_SOL_PACKET, _RX_RING, _STATISTICS, _VERSION, _V3 = 263, 5, 6, 10, 2
_ATTACH_FILTER = 26
_ALL = 0x0003  # ETH_P_ALL: only such sockets see what a bridge's port takes in
_MAX_FILTER = 4096

Instruction = tuple[int, int, int, int]

_AD = 0xFFFFF000  # SKF_AD_OFF
_LD, _LDH, _LDB = 0x20, 0x28, 0x30
_LDH_X, _LDB_X, _LDX_MSH = 0x48, 0x50, 0xB1
_JA, _JEQ, _JSET, _RET = 0x05, 0x15, 0x45, 0x06
_AND, _RSH, _ADD_X, _SUB_X, _TAX = 0x54, 0x74, 0x0C, 0x1C, 0x07


def program(ports: Sequence[int], bridges: Sequence[int]) -> list[Instruction]:
    """A classic BPF program: TCP over IPv4 that carries data, or begins or ends a connection.

    ports: interfaces of which what comes in counts; bridges: those of which
    what goes out counts (it comes from the host). So no packet counts twice.
    Acknowledgements without data are left out. Raises ValueError for too many.
    """
    tail: list[Instruction] = [
        (_LDX_MSH, 0, 0, 14),
        (_LDB_X, 0, 0, 14 + 13),
        (_JSET, 8, 0, 0x07),  # FIN, SYN, RST: take
        (_LDB_X, 0, 0, 14 + 12),
        (_AND, 0, 0, 0xF0),
        (_RSH, 0, 0, 2),
        (_ADD_X, 0, 0, 0),
        (_TAX, 0, 0, 0),
        (_LDH, 0, 0, 16),
        (_SUB_X, 0, 0, 0),  # bytes of data; what is longer than 64 KiB says 0 and is taken
        (_JEQ, 1, 0, 0),
        (_RET, 0, 0, SNAP),
        (_RET, 0, 0, 0),
    ]
    outgoing = _interfaces(bridges, 0)
    incoming = _interfaces(ports, len(outgoing))
    # packet type 4 is PACKET_OUTGOING
    choose: list[Instruction] = [(_LD, 0, 0, _AD + 4), (_JEQ, 0, 1, 4), (_JA, 0, 0, len(incoming))]
    body = choose + incoming + outgoing + tail
    head: list[Instruction] = [
        (_LDH, 0, 0, 12),
        (_JEQ, 1, 0, 0x0800),
        (_RET, 0, 0, 0),
        (_LDB, 0, 0, 23),
        (_JEQ, 1, 0, 6),
        (_RET, 0, 0, 0),
        (_LDH, 0, 0, 20),
        (_JSET, 0, 1, 0x1FFF),
        (_RET, 0, 0, 0),
    ]
    made = head + body
    if len(made) > _MAX_FILTER:
        raise ValueError(f"{len(ports)} interfaces are more than a filter can hold")
    return made


def _interfaces(indexes: Sequence[int], after: int) -> list[Instruction]:
    """Goes on ``after`` instructions behind this list for one of ``indexes``, else drops."""
    made: list[Instruction] = [(_LD, 0, 0, _AD + 8)]
    for n, index in enumerate(indexes):
        left = 2 * (len(indexes) - n - 1) + 1  # what of this list follows the jump
        made += [(_JEQ, 0, 1, index), (_JA, 0, 0, left + after)]
    return made + [(_RET, 0, 0, 0)]


class PacketRing:
    """A packet socket with its ring. For one thread; needs CAP_NET_RAW to be made only."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_PACKET,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                socket.htons(_ALL),
            )
        except OSError as error:
            raise Unavailable("cannot capture packets", details=str(error)) from error
        try:
            self.watch((), ())
            self._socket.setsockopt(_SOL_PACKET, _VERSION, _V3)
            request = struct.pack("=7I", BLOCK, BLOCKS, 2048, BLOCK * BLOCKS // 2048, RETIRE, 0, 0)
            # what has come before there was a filter is thrown away with this
            self._socket.setsockopt(_SOL_PACKET, _RX_RING, request)
            self._ring = mmap.mmap(self._socket.fileno(), BLOCK * BLOCKS)
        except OSError as error:
            self._socket.close()
            raise Failed("cannot capture packets", details=str(error)) from error
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        if self._socket.fileno() >= 0:
            self._ring.close()
            self._socket.close()

    def fileno(self) -> int:
        """For polling: readable when a block is ready."""
        return self._socket.fileno()

    def watch(self, ports: Sequence[int], bridges: Sequence[int]) -> None:
        """Chooses the interfaces: see ``program``. Raises ValueError, Failed."""
        made = program(ports, bridges)
        code = ctypes.create_string_buffer(
            b"".join(struct.pack("=HBBI", op, jt, jf, k) for op, jt, jf, k in made)
        )
        described = struct.pack("@HP", len(made), ctypes.addressof(code))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)
        except OSError as error:
            raise Failed("the kernel refuses the packet filter", details=str(error)) from error

    def dropped(self) -> int:
        """Packets that the kernel dropped since the last call because the ring was full."""
        raw = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12)
        return int(struct.unpack("=3I", raw)[1])

    def packets(self, most: int = BLOCKS) -> Iterator[tuple[float, bytes]]:
        """Time (seconds since the epoch) and bytes of every packet of the blocks that are ready."""
        ring = self._ring
        for _ in range(most):
            base = self._next * BLOCK
            status, count, at = struct.unpack_from("=3I", ring, base + 8)
            if not status & 1:
                return
            at += base
            for _ in range(count):
                step, seconds, nanos, size = struct.unpack_from("=4I", ring, at)
                begin = at + struct.unpack_from("=H", ring, at + 24)[0]
                yield seconds + nanos / 1e9, ring[begin : begin + size]
                at += step
            struct.pack_into("=I", ring, base + 8, 0)  # the kernel's again
            self._next = (self._next + 1) % BLOCKS


def interface_index(name: str) -> int:
    """The number of an interface in this network namespace; 0 if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def limit_memory(size: int) -> None:
    """This process may not have more than ``size`` bytes of address space from now on."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    os.nice(5)  # before the services, never
