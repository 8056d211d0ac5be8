"""Virtio slots that are empty in a template and filled in its clones. Pure.

QEMU's microvm machine has a fixed row of virtio-mmio slots, and tells the guest
of those that hold a device when it boots. QEMU saves no VM with a file server, nor
restores one, so they are plugged in later, into slots that were empty: an ACPI table
of our own, which the kernel takes from the initrd, tells the guest where those are,
and the agent has the kernel look at one when the CONFIG says so. Addresses are QEMU's
(hw/i386/microvm.c, include/hw/i386/microvm.h), unchanged since 5.2.
"""

from __future__ import annotations

import struct

#: Slots of the machine with its second I/O APIC (acpi=on).
SLOTS = 24
#: So many, from this one on, are spare: QEMU fills the row from its end. The interrupt of the
#: very first reaches no guest: it is the first of its I/O APIC.
FIRST = 1
SPARE = 12
#: Where the initrd holds the table (the kernel's Documentation/admin-guide/acpi/).
PATH = "kernel/firmware/acpi/gemel-slots.aml"

_BASE = 0xFEB00000
_SIZE = 0x200
_FIRST_INTERRUPT = 24

_HEADER = struct.Struct("<4sIBB6s8sI4sI")


def _package(content: bytes) -> bytes:
    """AML's PkgLength, which counts itself, and what it is the length of."""
    if len(content) + 1 < 1 << 6:
        return bytes([len(content) + 1]) + content
    length = len(content) + 2
    if length < 1 << 12:
        return bytes([1 << 6 | length & 15, length >> 4]) + content
    length += 1
    return bytes([2 << 6 | length & 15, length >> 4 & 255, length >> 12]) + content


def _name(name: bytes, value: bytes) -> bytes:
    return b"\x08" + name + value


def _resources(slot: int) -> bytes:
    """One window of memory and one interrupt (level, active high, exclusive)."""
    found = struct.pack("<BHBII", 0x86, 9, 1, _BASE + slot * _SIZE, _SIZE)
    found += struct.pack("<BHBBI", 0x89, 6, 1, 1, _FIRST_INTERRUPT + slot)
    found += b"\x79\x00"
    return b"\x11" + _package(bytes([0x0A, len(found)]) + found)


def _device(slot: int) -> bytes:
    content = b"GS%02d" % slot
    content += _name(b"_HID", b"\x0dLNRO0005\0")
    content += _name(b"_UID", bytes([0x0A, slot]))
    content += _name(b"_CCA", b"\x01")
    content += _name(b"_CRS", _resources(slot))
    return b"\x5b\x82" + _package(content)


def table() -> bytes:
    """The ACPI table (an SSDT) of the spare slots."""
    devices = b"".join(_device(slot) for slot in range(FIRST, FIRST + SPARE))
    body = b"\x10" + _package(b"\\_SB_" + devices)
    facts = (b"GEMEL ", b"GEMELSLT", 1, b"GEML", 1)
    length = _HEADER.size + len(body)
    whole = _HEADER.pack(b"SSDT", length, 2, 0, *facts) + body
    checksum = -sum(whole) & 255
    return whole[:9] + bytes([checksum]) + whole[10:]
