"""Connections as frames on the wire, for tests of the capture."""

from __future__ import annotations

import struct

Frame = tuple[float, bytes]
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


class Wire:
    """One connection; every method gives a frame with its time."""

    def __init__(self, port: int = 80, source: int = 40000, start: int = 100) -> None:
        self.ports = (source, port)
        self.sequence = [start, 0xFFFFFF00]  # the server's wraps around
        self.now = 1000.0

    def frame(self, client: bool, data: bytes = b"", flags: int = PSH | ACK) -> Frame:
        """The next segment of one side."""
        ends = [bytes(map(int, end.split("."))) for end in (CLIENT, SERVER)]
        ports = self.ports
        if not client:
            ends, ports = ends[::-1], ports[::-1]
        mine, theirs = (0, 1) if client else (1, 0)
        numbers = [n % (1 << 32) for n in self.sequence]
        segment = (
            struct.pack(
                "!HHIIBBHHH", *ports, numbers[mine], numbers[theirs], 0x50, flags, 512, 0, 0
            )
            + data
        )
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + b"".join(
            ends
        )
        self.sequence[mine] += len(data) + bool(flags & (SYN | FIN))
        self.now += 0.001
        return self.now, b"\0" * 12 + b"\x08\x00" + packet + segment

    def ask(self, data: bytes) -> Frame:
        """The client says."""
        return self.frame(True, data)

    def answer(self, data: bytes) -> Frame:
        """The server says."""
        return self.frame(False, data)

    def open(self) -> list[Frame]:
        """The handshake."""
        return [self.frame(True, flags=SYN), self.frame(False, flags=SYN | ACK)]

    def close(self) -> list[Frame]:
        """Both sides end."""
        return [self.frame(True, flags=FIN | ACK), self.frame(False, flags=FIN | ACK)]
