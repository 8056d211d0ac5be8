"""Network namespaces: made, kept open by a bind mount, entered for one call, let go.

A namespace is a property of a thread. Every call here uses a thread of its own
that ends afterwards, so no thread of the engine is ever left in a foreign one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from gemel.errors import Failed, Unavailable
from gemel.host import mounts

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNET = 0x40000000


class _Call(threading.Thread, Generic[T]):
    """Runs ``work`` in a thread of its own and keeps what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="namespace", daemon=True)
        self._work = work
        self._error: BaseException | None = None
        self._value: list[T] = []

    def run(self) -> None:
        try:
            self._value.append(self._work())
        except BaseException as error:  # handed to the caller below
            self._error = error

    def result(self) -> T:
        self.start()
        self.join()
        if self._error is not None:
            raise self._error
        return self._value[0]


def _check(done: int, what: str) -> None:
    if done != 0:
        code = ctypes.get_errno()
        kind = Unavailable if code == errno.EPERM else Failed
        raise kind(f"cannot {what}", details=os.strerror(code))


def loopback_up() -> None:
    """Brings ``lo`` up in the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS


def create(path: Path, sysctls: Sequence[tuple[str, str]] = ()) -> None:
    """Makes a network namespace with ``lo`` up, kept open by a mount at ``path``.

    sysctls: set inside, names with dots; one that this kernel lacks is passed
    over. Raises Failed, Unavailable (no permission); nothing is left then.
    """

    def work() -> None:
        _check(_libc.unshare(_NEWNET), "make a network namespace")
        loopback_up()
        for name, value in sysctls:
            set_sysctl(name, value)
        mounts.mount("/proc/thread-self/ns/net", path, flags=mounts.Flag.BIND)

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    try:
        _Call(work).result()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def release(path: Path) -> None:
    """Lets go of a namespace made by ``create``. Idempotent.

    The kernel takes it down once no process is in it, with all that is in it.
    """
    mounts.unmount(path)
    path.unlink(missing_ok=True)


def inside(path: Path, work: Callable[[], T]) -> T:
    """Runs ``work`` in the network namespace at ``path`` and gives back its result.

    Blocks until it is done. Raises what ``work`` raises, or Failed if the
    namespace cannot be entered.
    """

    def enter() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _NEWNET), f"enter the network namespace {path}")
        finally:
            os.close(fd)
        return work()

    return _Call(enter).result()


def set_sysctl(name: str, value: str) -> bool:
    """Sets ``net.…`` in the calling thread's namespace if it differs. False: there is no such."""
    path = Path("/proc/sys", *name.split("."))
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except (FileNotFoundError, PermissionError) as error:
        if isinstance(error, PermissionError) and path.exists():
            raise Failed(f"cannot set {name} to {value}", details=str(error)) from error
        return False
    return True


def add_tap(name: str) -> None:
    """Makes a tap device that lasts without an owner; fine if it exists.

    Raises Unavailable without /dev/net/tun, Failed if the kernel refuses.
    """
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            "cannot make a tap device",
            details=str(error),
            resolution="load the module: modprobe tun",
        ) from error
    try:
        flags = 0x0002 | 0x1000 | 0x4000  # IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), flags))  # TUNSETIFF
        fcntl.ioctl(fd, 0x400454CB, 1)  # TUNSETPERSIST
    except OSError as error:
        if error.errno != errno.EBUSY:  # exists, and a micro VM has it open
            raise Failed(f"cannot make the tap device {name}", details=str(error)) from error
    finally:
        os.close(fd)
