"""Who has a port of the host: read from /proc."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Holder(NamedTuple):
    """A process that has a port. pid 0: it is not to be seen (another pid namespace)."""

    pid: int
    name: str


def holder(protocol: str, address: str, port: int) -> Holder | None:
    """Who listens on the port, at ``address`` or at all addresses; None if nobody is to be seen.

    Takes some 10 ms with many processes: for error messages, in a thread.
    """
    inodes = set(_inodes(protocol, address, port))
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            for entry in os.scandir(folder / "fd"):
                if os.readlink(entry.path) in wanted:
                    name = (folder / "comm").read_text().strip()
                    return Holder(int(folder.name), name)
        except OSError:
            continue  # it ended meanwhile, or is not ours to look into
    return Holder(0, "")


def taken(protocol: str, address: str, port: int) -> bool:
    """Whether somebody has the port, at ``address`` or at all addresses."""
    return next(_inodes(protocol, address, port), None) is not None


def _inodes(protocol: str, address: str, port: int) -> Iterator[str]:
    """Inodes of sockets on the port. Formats: Documentation/networking/proc_net_tcp.rst."""
    everywhere = address in ("", "0.0.0.0")
    mine = "" if everywhere else f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"
    for table in (protocol, protocol + "6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, _, number = fields[1].partition(":")
            if int(number, 16) != port or (protocol == "tcp" and fields[3] != "0A"):
                continue
            if everywhere or set(local) == {"0"} or local[-8:] == mine:
                yield fields[9]
