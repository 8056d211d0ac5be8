"""The image of tools that a debug shell runs: Debian's packages, debugpy, a few scripts.

Its name holds a digest of all that it is made from, so a newer gemel makes a newer one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import tarfile
from pathlib import Path

from gemel.errors import Unavailable

NAME = "gemel/toolbox"
PACKAGES = (
    *("bash", "less", "procps", "lsof", "vim-tiny", "python3"),
    *("strace", "gdb-minimal", "gdbserver"),
    *("curl", "ca-certificates", "iproute2", "iputils-ping", "socat", "tcpdump"),
)
#: Where debugpy lies in the toolbox; it is never installed into a service.
DEBUGPY = "/opt/debugpy"
#: Where the scripts lie.
SCRIPTS = "/usr/local/bin"
_LAYOUT = 1
_TIME = 1_767_225_600
_SKIPPED = (".dll", ".exe", ".pdb", ".dylib", ".pyc", ".c", ".pyx", ".pxd", ".cpp", ".hpp", ".h")
_SKIPPED_FOLDERS = {"__pycache__", "windows", "winappdbg", "tests"}

_BASHRC = r"""
PS1='\[\e[1m\]debug ${GEMEL_SERVICE}\[\e[0m\] \w # '
alias ll='ls -l' vi='vi -u NONE -N'
cd "${GEMEL_FOLDER:-/service}" 2>/dev/null || cd /
"""


def folder(name: str = "scripts") -> Path:
    """The files of this package that go into the image."""
    return Path(__file__).parent / "toolbox_files" / name


def reference() -> str:
    """The image's name. Raises Unavailable if debugpy is not installed beside gemel."""
    digest = hashlib.sha256(f"{_LAYOUT} {debugpy_version()} {PACKAGES} {_BASHRC}".encode())
    for path in sorted(folder().iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return f"{NAME}:{digest.hexdigest()[:12]}"


def debugpy_version() -> str:
    """Version of the debugpy that goes in. Raises Unavailable."""
    try:
        return importlib.metadata.version("debugpy")
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(
            "the toolbox needs debugpy, which is not installed beside gemel",
            resolution="pip install debugpy, into the same environment as gemel",
        ) from None


def _debugpy() -> Path:
    found = importlib.util.find_spec("debugpy")
    if found is None or not found.origin:
        raise Unavailable("debugpy is not installed beside gemel", resolution="pip install debugpy")
    return Path(found.origin).parent


def extra() -> bytes:
    """A tar of what is added to the packages. Raises Unavailable."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        base = _debugpy()
        for path in sorted(base.rglob("*")):
            inside = path.relative_to(base.parent)
            if path.is_file() and _wanted(inside):
                _add(tar, f"{DEBUGPY}/{inside}", path.read_bytes())
        for path in sorted(folder().iterdir()):
            if path.is_file():
                _add(tar, f"{SCRIPTS}/{path.name}", path.read_bytes(), 0o755)
        _add(tar, "/root/.bashrc", _BASHRC.encode())
        _add(tar, "/etc/gdb/gdbinit", b"set sysroot /service\nset debuginfod enabled off\n")
        _link(tar, "/service", "/proc/1/root")
        for name in ("hosts", "resolv.conf"):  # names are looked up as the service does it
            _link(tar, f"/etc/{name}", f"/service/etc/{name}")
    return out.getvalue()


def _wanted(path: Path) -> bool:
    return path.suffix not in _SKIPPED and not _SKIPPED_FOLDERS & set(path.parts)


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode, entry.mtime = len(data), mode, _TIME
    tar.addfile(entry, io.BytesIO(data))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, target, _TIME
    tar.addfile(entry)
