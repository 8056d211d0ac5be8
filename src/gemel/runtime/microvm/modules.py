"""Which kernel modules a guest needs, in an order in which they can be loaded. Pure."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable

#: What every guest loads at boot.
AT_BOOT = (
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "crc32c_generic",
    "squashfs",
    "overlay",
    "ext4",
)
#: What the agent loads when a CONFIG asks for such a file system, or a debug session for the
#: toolbox's disk: each takes tens of milliseconds.
ON_DEMAND = ("virtiofs", "erofs", "nbd")
#: All that a guest may need. What is built into a kernel is left out by ``in_order``.
WANTED = (*AT_BOOT, *ON_DEMAND)

_FIELD = re.compile(rb"(?<![^\0])(depends|softdep)=([^\0]*)\0")


def plain(name: str) -> str:
    """A module's name as the kernel has it: ``crc32c-intel`` is ``crc32c_intel``."""
    return name.replace("-", "_")


def needs(module: bytes) -> list[str]:
    """Names of the modules that one (its .ko file, unpacked) must be loaded after."""
    names: list[str] = []
    for key, value in _FIELD.findall(module):
        text = value.decode("ascii", "replace")
        if key == b"depends":
            names += [name for name in text.split(",") if name]
        elif text.startswith("pre:"):
            names += text[4:].split(" post:")[0].split()
    return [plain(name) for name in names]


_SIGNED = b"~Module signature appended~\n"
_SIGNATURE = struct.Struct(">8xI")


def unsigned(module: bytes) -> bytes:
    """A module without its signature, whose check takes an emulated guest tens of milliseconds.

    The initrd as a whole is ours, and Debian's kernels do not insist on signatures.
    """
    if not module.endswith(_SIGNED):
        return module
    end = len(module) - len(_SIGNED) - _SIGNATURE.size
    if end < 0:
        return module
    (length,) = _SIGNATURE.unpack_from(module, end)
    return module[: end - length] if length <= end else module


def in_order(wanted: Iterable[str], load: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """The wanted modules and all they need, by name, in the order to load them.

    load: gives a module's content by its plain name, None if there is no such
    module (built in, or unknown to this kernel).
    """
    done: dict[str, bytes] = {}
    entered: set[str] = set()

    def visit(name: str) -> None:
        if name in entered:
            return
        entered.add(name)
        content = load(name)
        if content is None:
            return
        for other in needs(content):
            visit(other)
        done[name] = content

    for name in wanted:
        visit(plain(name))
    return done


def plan(load: Callable[[str], bytes | None]) -> list[tuple[str, str, bytes]]:
    """(name, what asks for it, content) in the order to load; asked for by "": at boot."""
    picked = in_order(AT_BOOT, load)
    rows = [(name, "", content) for name, content in picked.items()]
    for kind in ON_DEMAND:
        for name, content in in_order([kind], load).items():
            if name not in picked:
                rows.append((name, kind, content))
    return rows
