"""Files in memory that no name leads to: they end with their last user, whatever happens."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gemel.errors import Failed


def make(name: str, size: int = 0) -> int:
    """A descriptor of a new file of ``size`` bytes (all holes). Raises Failed."""
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise Failed("cannot make a file in memory", details=str(error)) from error
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        os.close(fd)
        raise Failed("cannot make a file in memory", details=str(error)) from error
    return fd


def seal(fd: int) -> None:
    """From now on nobody can change the file, root neither, through no descriptor.

    It may still be mapped privately. Raises Failed while someone has it mapped for writing.
    """
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        raise Failed("cannot seal a file in memory", details=str(error)) from error


def fix_size(fd: int) -> None:
    """From now on the file can neither grow nor shrink."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)


def used(fd: int) -> int:
    """Bytes that it takes."""
    return os.fstat(fd).st_blocks * 512


def available() -> int:
    """Bytes of memory that the host has to spare."""
    return _told("MemAvailable:")


def total() -> int:
    """Bytes of memory that the host has."""
    return _told("MemTotal:")


def _told(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0
