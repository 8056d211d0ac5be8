"""Mounting, by the system call itself (a fork of mount(8) costs 3 ms each)."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from enum import IntFlag
from pathlib import Path

from gemel.errors import Failed

_libc = ctypes.CDLL(None, use_errno=True)


class Flag(IntFlag):
    """Flags of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    MOVE = 8192
    REC = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20


NONE = Flag(0)


def mount(
    source: str, target: str | Path, kind: str = "", flags: Flag = NONE, data: str = ""
) -> None:
    """mount(2). Raises Failed with the kernel's reason."""
    done = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(int(flags)),
        data.encode() or None,
    )
    if done != 0:
        code = ctypes.get_errno()
        raise Failed(
            f"cannot mount {kind or source} on {target}", details=f"mount: {os.strerror(code)}"
        )


def bind(source: str | Path, target: str | Path, *, readonly: bool = False) -> None:
    """Bind mount of a file or folder, read-only if asked."""
    mount(str(source), target, flags=Flag.BIND | Flag.REC)
    if readonly:
        mount("none", target, flags=Flag.BIND | Flag.REMOUNT | Flag.RDONLY)


def unmount(target: str | Path, *, lazy: bool = True) -> None:
    """umount2(2); what is not mounted is fine. lazy detaches at once (MNT_DETACH).

    Raises Failed if the kernel refuses for another reason.
    """
    flags = (2 if lazy else 0) | 8  # MNT_DETACH, UMOUNT_NOFOLLOW
    if _libc.umount2(os.fsencode(target), flags) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):
            raise Failed(f"cannot unmount {target}", details=os.strerror(code))


def is_mount(path: Path) -> bool:
    """Whether something is mounted at ``path`` in this mount namespace."""
    # the table has some lines for each container: it is read only where nothing else tells
    try:
        here = os.lstat(path)
        if stat.S_ISDIR(here.st_mode) and here.st_dev != os.lstat(path.parent).st_dev:
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a mount whose file system answers no more
        pass
    wanted = os.fsencode(path).replace(b" ", b"\\040")
    with open("/proc/self/mountinfo", "rb") as table:
        return any(line.split(b" ", 5)[4] == wanted for line in table)
