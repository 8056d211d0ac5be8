"""A mount namespace of the engine's own that outlives it.

Instances' mounts must be there for the next engine after a kill -9. So the
namespace is pinned: ``/proc/PID/ns/mnt`` is bound on a file, in the namespace
that the engine was started in. A namespace may be bound only in an older one
and under a mount that does not propagate (the kernel refuses a cycle), which is
why the pin lies in a folder that is bound on itself and made private.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from gemel.errors import Failed, GemelError
from gemel.host import mounts
from gemel.host.mounts import Flag

_CLONE_NEWNS = 0x00020000
_OWN = "/proc/self/ns/mnt"
_UNIFIED = Path("/sys/fs/cgroup/unified")

_libc = ctypes.CDLL(None, use_errno=True)


class MountNamespace:
    """The namespace that the process is in, and the way back to the one it came from."""

    def __init__(self, folder: Path, outer: int, adopted: bool) -> None:
        self._folder = folder
        self._outer = outer
        self.adopted = adopted
        """Whether an earlier engine made it (with whatever is mounted in it)."""

    @property
    def pin(self) -> Path:
        """The file, in the outer namespace, that the namespace is bound on."""
        return self._folder / "ns"

    def release(self) -> None:
        """Unpins the namespace: it ends with its last process, and all mounts in it.

        Raises Failed if the kernel refuses.
        """

        def unpin() -> None:
            _setns(self._outer)
            mounts.unmount(self.pin)
            mounts.unmount(self._folder)

        _in_child(unpin)

    def close(self) -> None:
        """Lets go of the descriptor; the pin stays."""
        if self._outer >= 0:
            os.close(self._outer)
            self._outer = -1


def is_pinned(folder: Path) -> bool:
    """Whether a namespace is bound in ``folder``."""
    try:
        return (folder / "ns").stat().st_dev == os.stat(_OWN).st_dev
    except OSError:
        return False


def enter(folder: Path) -> MountNamespace:
    """Enters the namespace that is pinned in ``folder``, or makes and pins one.

    Must be called while the process has one thread. Raises Failed; then the
    process is where it was, and nothing is mounted.
    """
    outer = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if is_pinned(folder):
            pin = os.open(folder / "ns", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(pin)
            finally:
                os.close(pin)
            return MountNamespace(folder, outer, adopted=True)
        _make(folder, outer)
        return MountNamespace(folder, outer, adopted=False)
    except BaseException:
        os.close(outer)
        raise


def _make(folder: Path, outer: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ns").touch()
    if not mounts.is_mount(folder):
        mounts.bind(folder, folder)
    try:
        mounts.mount("none", folder, flags=Flag.PRIVATE)
        _unshare_pinned(folder / "ns", outer)
        mounts.mount("none", "/", flags=Flag.REC | Flag.SLAVE)
        hide_unified()
    except BaseException:
        _setns(outer)
        mounts.unmount(folder / "ns")
        mounts.unmount(folder)
        raise


def hide_unified() -> None:
    """Hides the v2 half of a hybrid hierarchy from this mount namespace: crun refuses one.

    An empty tmpfs takes its place. With version 1 crun makes a folder for each
    container there too, which would else stay on the host's own tmpfs below.
    """
    if mounts.is_mount(_UNIFIED):
        mounts.unmount(_UNIFIED)
        mounts.mount("none", _UNIFIED, "tmpfs", Flag.NOSUID | Flag.NODEV, "size=16m")


def _unshare_pinned(pin: Path, outer: int) -> None:
    """unshare(CLONE_NEWNS), then binds the new namespace in the outer one.

    The kernel tells the older of two namespaces by their ids, and Linux 6.18
    draws these from a batch of each CPU: made on another CPU than the outer
    one, the new namespace may count as older, and is refused (EINVAL). On the
    CPU that made the outer one it never does, so every CPU gets its turn.
    """
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in [None, *sorted(allowed)]:
            if cpu is not None:
                _setns(outer)
                os.sched_setaffinity(0, {cpu})
            try:
                _unshare_once(pin, outer)
                return
            except Failed as error:
                refusal = error
        raise refusal
    finally:
        os.sched_setaffinity(0, allowed)


def _unshare_once(pin: Path, outer: int) -> None:
    if _libc.unshare(_CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise Failed(
            "cannot make a mount namespace",
            details=f"unshare: {os.strerror(code)}",
            resolution="the engine must run as root (CAP_SYS_ADMIN)",
        )
    source = f"/proc/{os.getpid()}/ns/mnt"

    def bind() -> None:
        _setns(outer)
        mounts.mount(source, pin, flags=Flag.BIND)

    _in_child(bind)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise Failed("cannot enter a mount namespace", details=f"setns: {os.strerror(code)}")


def _in_child(action: Callable[[], None]) -> None:
    """Runs ``action`` in a forked process, which may change its namespaces at will.

    Raises Failed with the child's reason.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except GemelError as error:
            os.write(writer, str(error).encode()[:2000])
        except BaseException as error:
            os.write(writer, repr(error).encode()[:2000])
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reason = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise Failed("cannot change the mount namespace's pin", details=reason)
