"""Takes the ELF kernel out of a bzImage. QEMU starts that faster, through its PVH entry.

Format: the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

from gemel.errors import Failed

_SETUP_SECTS = 0x1F1
_MAGIC = 0x202
_VERSION = 0x206
_PAYLOAD = 0x248
#: No kernel is larger than this when unpacked.
LIMIT = 256 << 20

GZIP, XZ, BZIP2, LZMA = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x5d\0\0"
ZSTD, LZ4, ELF = b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"\x7fELF"

#: Formats that Python cannot unpack, and the program that can (input to output).
PROGRAMS = {ZSTD: ("zstd", "-dcq"), LZ4: ("lz4", "-dcq")}


def payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage. Raises Failed if it is none."""
    if len(image) < 0x250 or image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise Failed("the guest kernel is not a bzImage")
    (version,) = struct.unpack_from("<H", image, _VERSION)
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (image[_SETUP_SECTS] + 1) * 512 + offset
    if version < 0x208 or length < 8 or start + length > len(image):
        raise Failed("the guest kernel's header is damaged")
    return image[start : start + length]


def program_for(data: bytes) -> tuple[str, ...] | None:
    """The program that unpacks ``data``; None where ``unpack`` does."""
    for magic, argv in PROGRAMS.items():
        if data.startswith(magic):
            return argv
    return None


def unpack(data: bytes) -> bytes:
    """Unpacks a payload, ignoring what follows (the size that the kernel's build appends).

    Raises Failed for an unknown or damaged format.
    """
    try:
        if data.startswith(ELF):
            return data
        if data.startswith(GZIP):
            return zlib.decompressobj(31).decompress(data, LIMIT)
        if data.startswith(XZ):
            return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data, LIMIT)
        if data.startswith(LZMA):
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, LIMIT)
        if data.startswith(BZIP2):
            return bz2.BZ2Decompressor().decompress(data, LIMIT)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise Failed("the guest kernel cannot be unpacked", details=str(error)) from error
    raise Failed("the guest kernel is packed in an unknown way", details=data[:8].hex())


def check_elf(kernel: bytes) -> bytes:
    """Gives back an ELF kernel that QEMU can start by PVH. Raises Failed if it is none."""
    if not kernel.startswith(ELF):
        raise Failed("the guest kernel is no ELF file once unpacked")
    # XEN_ELFNOTE_PHYS32_ENTRY (18): name size 4, descriptor size 4 or 8, type, "Xen\0"
    if not any(struct.pack("<III4s", 4, size, 18, b"Xen\0") in kernel for size in (4, 8)):
        raise Failed("the guest kernel has no PVH entry (CONFIG_PVH)")
    return kernel
