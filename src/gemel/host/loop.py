"""Loop devices by their ioctls: a file as a block device, gone with its last user."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from gemel.errors import Failed, Unavailable
from gemel.host.mounts import Flag, mount

_GET_FREE = 0x4C82  # LOOP_CTL_GET_FREE
_CONFIGURE = 0x4C0A  # LOOP_CONFIGURE, Linux 5.8
_READ_ONLY, _AUTOCLEAR = 1, 4
_ATTEMPTS = 50
_MAJOR = 7


def mount_readonly(file: Path, target: Path, kind: str) -> None:
    """Mounts the file system in ``file`` read-only, without devices, at ``target``.

    Setuid programs stay so: they are meant for inside of containers. The loop
    device frees itself when the last mount of it goes. Raises Failed, Unavailable.
    """
    source = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device, path = _attach(source, file)
    finally:
        os.close(source)
    try:
        mount(path, target, kind, Flag.RDONLY | Flag.NODEV)
    finally:
        # the mount holds the device now; if there is none, closing frees it
        os.close(device)


def _attach(source: int, file: Path) -> tuple[int, str]:
    """Binds ``source`` to a free loop device and gives it back open, and its path."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            "loop devices are not available",
            details=f"/dev/loop-control: {error.strerror}",
            resolution="load the kernel's module: modprobe loop",
        ) from error
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _GET_FREE)
            device, path = _open(number)
            try:
                fcntl.ioctl(device, _CONFIGURE, _config(source, file))
            except OSError as error:
                os.close(device)
                if error.errno == errno.EBUSY:  # somebody else took it since
                    continue
                raise Failed(f"cannot attach {file} to {path}", error.strerror or "") from error
            return device, path
    finally:
        os.close(control)
    raise Failed(f"no free loop device for {file}", f"{_ATTEMPTS} attempts")


def _open(number: int) -> tuple[int, str]:
    path = f"/dev/loop{number}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), path
    except FileNotFoundError:
        # /dev is not a devtmpfs here, so nobody made the node
        os.mknod(path, 0o600 | 0o060000, os.makedev(_MAJOR, number))
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), path


def _config(source: int, file: Path) -> bytes:
    """struct loop_config (linux/loop.h): fd, block_size, struct loop_info64, 8 reserved."""
    flags = _READ_ONLY | _AUTOCLEAR
    info = struct.pack(
        "=5Q4I64s64s32s2Q", *(0,) * 5, 0, 0, 0, flags, os.fsencode(file)[:63], b"", b"", 0, 0
    )
    return struct.pack("=2I", source, 0) + info + b"\0" * 64
