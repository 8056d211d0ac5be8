"""A tiny image for tests: a root folder with busybox, as a tar archive."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
_GROUP = "root:x:0:\ntty:x:5:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n"
_FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var")


def _busybox() -> Path:
    found = shutil.which("busybox", path="/bin:/usr/bin")
    assert found, "the Debian package busybox-static is missing"
    return Path(found)


@functools.cache
def busybox_tar() -> bytes:
    """A root with /bin/busybox and links for its applets, /etc/passwd (root, app 1000:1000,
    nobody), /etc/group, /tmp (1777), /root and /home/app. No /etc/hosts, hostname, resolv.conf.
    """
    applets = subprocess.run(
        [_busybox(), "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in _FOLDERS:
            _add(tar, name, tarfile.DIRTYPE, mode=0o700 if name == "root" else 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, mode=0o1777)
        _add(tar, "home/app", tarfile.DIRTYPE, mode=0o755, owner=1000)
        _add(tar, "bin/busybox", data=_busybox().read_bytes(), mode=0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            _add(tar, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        _add(tar, "etc/passwd", data=_PASSWD.encode())
        _add(tar, "etc/group", data=_GROUP.encode())
    return out.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    data: bytes = b"",
    mode: int = 0o644,
    owner: int = 0,
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
    entry.uid = entry.gid = owner
    entry.mtime = 1_700_000_000
    tar.addfile(entry, io.BytesIO(data))


def make_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar archive with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            _add(tar, name, data=data)
    return out.getvalue()


async def stream(data: bytes, piece: int = 1 << 16) -> AsyncIterator[bytes]:
    """``data`` in pieces, as a request's body comes."""
    for begin in range(0, len(data), piece):
        yield data[begin : begin + piece]
