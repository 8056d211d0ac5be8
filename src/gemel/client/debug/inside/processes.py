"""The service's processes, as they are seen from the toolbox."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def all_of_service() -> list[int]:
    """Process ids, the smallest first: those in the mount namespace of the service's first."""
    own = os.readlink("/proc/self/ns/mnt")
    first = _first(own)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/mnt") == first:
                    found.append(int(name))
    return sorted(found)


def _first(own: str) -> str:
    """The mount namespace of the process whose root /service leads to."""
    with contextlib.suppress(OSError):
        pid = os.readlink("/service").split("/")[2]
        found = os.readlink(f"/proc/{pid}/ns/mnt")
        if found != own:
            return found
    return ""


def program(pid: int) -> str:
    """The base name of what it runs; empty if it cannot be told."""
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:
        return ""


def words(pid: int) -> list[str]:
    """Its command line."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode("utf-8", "replace") for word in raw.split(b"\0")[:-1]]


def folder(pid: int) -> str:
    """Its working folder, as it sees it."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return "/"


def owner(pid: int) -> tuple[int, int, list[int]]:
    """Its user, group and further groups."""
    uid = gid = 0
    groups: list[int] = []
    with open(f"/proc/{pid}/status", errors="replace") as file:
        for line in file:
            key, _, rest = line.partition(":")
            if key == "Uid":
                uid = int(rest.split()[1])
            elif key == "Gid":
                gid = int(rest.split()[1])
            elif key == "Groups":
                groups = [int(word) for word in rest.split()]
    return uid, gid, groups


def alive(pid: int) -> bool:
    """Whether it runs."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def listening(port: int) -> bool:
    """Whether somebody listens on a TCP port of this network."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    return True
    return False
