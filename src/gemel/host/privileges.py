"""A process that lets go of what it does not need: its parent, its terminal, root."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from gemel.errors import Failed

_libc = ctypes.CDLL(None, use_errno=True)

_SET_KEEPCAPS, _SET_NAME, _SET_NO_NEW_PRIVS = 8, 15, 38
_VERSION_3 = 0x20080522

#: May bind ports below 1024.
NET_BIND_SERVICE = 10

NOBODY = 65534


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def _check(done: int, what: str) -> None:
    if done != 0:
        raise Failed(f"cannot {what}", details=os.strerror(ctypes.get_errno()))


def drop_root(uid: int = NOBODY, gid: int = NOBODY, keep: tuple[int, ...] = ()) -> None:
    """Becomes another user for good, with only the capabilities in ``keep``.

    For a process with one thread. Raises Failed; the process should end then.
    """
    _check(_libc.prctl(_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    mask = sum(1 << capability for capability in keep)
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)(
        _Data(mask & 0xFFFFFFFF, mask & 0xFFFFFFFF, 0), _Data(mask >> 32, mask >> 32)
    )
    _check(_libc.capset(ctypes.byref(header), data), "set capabilities")
    _check(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")


def set_name(name: str) -> None:
    """The process's name as ps and top show it (15 characters)."""
    _libc.prctl(_SET_NAME, name.encode()[:15], 0, 0, 0)


def give_way(nice: int) -> None:
    """Lets others go first where processors are short; nice: 1 to 19."""
    os.nice(nice)
    with contextlib.suppress(OSError):  # sessions are weighed against each other, where that is on
        Path("/proc/self/autogroup").write_text(str(nice))


def detach(log: Path) -> int:
    """Goes on in a child with a session of its own; its standard error goes to ``log``.

    Gives back a descriptor in the child: write one byte to it when ready. The
    parent waits for it and ends with status 0, or 1 if the child ends before.
    """
    ready, tell = os.pipe()
    if os.fork() != 0:
        os.close(tell)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    os.chdir("/")
    return tell


def start_time(pid: int) -> int:
    """When a process started, in the kernel's ticks; 0 if there is no such process.

    Together with the pid it names a process for good, since pids come again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[19])
