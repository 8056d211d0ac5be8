"""The guest's first file system: the agent, kernel modules, busybox; a cpio archive (newc).

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gemel.errors import Failed, Unavailable
from gemel.host import files
from gemel.host.run import find
from gemel.model.paths import Paths
from gemel.runtime.microvm import modules, slots
from gemel.runtime.microvm.kernels import Kernel

#: An archive is so many bytes or a multiple. QEMU loads it at the end of the guest's memory, with
#: its last page to spare unless the archive has a part in it, and newer firmware has put the ACPI
#: tables there. A guest whose tables are overwritten comes to no timer, and hangs.
PAGE = 4096
#: Folders that the agent mounts on.
FOLDERS = ("dev", "proc", "sys", "modules", ".gemel", "gemel")


class Entry(msgspec.Struct, frozen=True):
    """A file or folder of the archive. mode: as st_mode has it; device: major, minor."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Entry:
    """A folder that all may read."""
    return Entry(name, stat.S_IFDIR | 0o755)


def program(name: str, content: bytes) -> Entry:
    """A file that all may run."""
    return Entry(name, stat.S_IFREG | 0o755, content)


def plain(name: str, content: bytes) -> Entry:
    """A file that all may read."""
    return Entry(name, stat.S_IFREG | 0o644, content)


def cpio(entries: Iterable[Entry]) -> bytes:
    """The archive: owner root, no times, so equal entries make equal bytes."""
    parts: list[bytes] = []
    for number, entry in enumerate(entries, 1):
        parts += _cpio_entry(number, entry)
    parts += _cpio_entry(0, Entry("TRAILER!!!", 0))
    parts.append(bytes(-sum(map(len, parts)) % PAGE))
    return b"".join(parts)


def _cpio_entry(number: int, entry: Entry) -> list[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, major, minor)
    header = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(name), 0))
    return [
        header + name,
        bytes(-(len(header) + len(name)) % 4),
        entry.content,
        bytes(-len(entry.content) % 4),
    ]


def contents(agent: bytes, busybox: bytes, rows: list[tuple[str, str, bytes]]) -> list[Entry]:
    """What an initrd holds. rows: the modules, as ``modules.plan`` has them."""
    listed = "".join(f"{name} {kind}".strip() + "\n" for name, kind, _ in rows)
    return [
        plain(slots.PATH, slots.table()),
        *(folder(name) for name in FOLDERS),
        # the kernel opens it for the agent's first three descriptors
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        program("init", agent),
        program(".gemel/busybox", busybox),
        plain("modules.list", listed.encode()),
        *(plain(f"modules/{name}.ko", data) for name, data in {r[0]: r[2] for r in rows}.items()),
    ]


def is_static(elf: bytes) -> bool:
    """Whether a 64-bit ELF program needs no loader (it has no PT_INTERP)."""
    if len(elf) < 64 or elf[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    if size < 56 or offset + size * count > len(elf):
        return False
    return all(
        struct.unpack_from("<I", elf, offset + size * index)[0] != 3 for index in range(count)
    )


async def ensure_initrd(paths: Paths, kernel: Kernel, agent: Path) -> Path:
    """The initrd for ``kernel`` with ``agent``, built if there is none of this content yet.

    Raises Unavailable without a static busybox, Failed for an agent that is not static.
    """
    return await asyncio.to_thread(_ensure, paths, kernel, agent)


def _ensure(paths: Paths, kernel: Kernel, agent: Path) -> Path:
    def load(name: str) -> bytes | None:
        path = kernel.modules / f"{name}.ko"
        return path.read_bytes() if path.is_file() else None

    init = agent.read_bytes()
    if not is_static(init):
        raise Failed("the guest's agent is not linked statically", details=str(agent))
    archive = cpio(contents(init, _busybox(), modules.plan(load)))
    target = paths.kernels / f"initrd-{hashlib.sha256(archive).hexdigest()[:24]}.cpio"
    if not target.exists():
        files.folder(paths.kernels, 0o755)
        files.write(target, archive, mode=0o644, durable=True)
    return target


def _busybox() -> bytes:
    found = find("busybox")
    content = Path(found).read_bytes() if found else b""
    if not is_static(content):
        raise Unavailable(
            "micro VMs need a static busybox",
            details=f"{found} is linked dynamically" if found else "there is no busybox",
            resolution="install it: apt-get install busybox-static",
        )
    return content
