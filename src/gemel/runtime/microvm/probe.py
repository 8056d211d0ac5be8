"""Whether KVM can be used: found out by booting a real guest, and remembered.

/dev/kvm may open, and even create a VM, and still be useless (nested software
KVM). Only the agent's greeting from a booted guest tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

import msgspec

from gemel.errors import GemelError
from gemel.host import files
from gemel.model.paths import Paths
from gemel.runtime.microvm import relay
from gemel.runtime.microvm.cmdline import kernel_command_line
from gemel.runtime.microvm.machine import MIB, Job, Limits, Machine
from gemel.runtime.microvm.tools import Tools, find_tools

DEVICE = Path("/dev/kvm")
#: A usable KVM boots in well under a second; seconds.
BOOT_DEADLINE = 8.0
PROBE_MEMORY = 256 * MIB
#: The probe's VM is nobody: a user id that no instance has.
PROBE_USER = 0x70000000 - 1


class Verdict(msgspec.Struct, frozen=True):
    """name: ``kvm`` or ``tcg``. reason: why, in a few words. details: what QEMU said."""

    name: str
    usable_kvm: bool
    reason: str
    details: str = ""


class _Remembered(msgspec.Struct, frozen=True):
    key: str
    verdict: Verdict


def _cache(paths: Paths) -> Path:
    return paths.root / "microvm" / "accelerator.json"


def _key(tools: Tools) -> str:
    """Another kernel, QEMU or boot may change the answer."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{os.uname().release} {tools.qemu_version} {tools.kernel.version} {boot}"


def remembered(paths: Paths, tools: Tools) -> Verdict | None:
    """The verdict of an earlier probe that still holds."""
    try:
        found = msgspec.json.decode(_cache(paths).read_bytes(), type=_Remembered)
    except (OSError, msgspec.MsgspecError):
        return None
    return found.verdict if found.key == _key(tools) else None


async def accelerator(paths: Paths, tools: Tools | None = None) -> Verdict:
    """The accelerator for micro VMs. Probes at most once for each boot of the host.

    tools: what ``find_tools`` gave, if the caller has it. Raises Unavailable
    if QEMU, a guest kernel or the agent is missing.
    """
    if tools is None:
        tools = await find_tools(paths, lambda line: None)
    if verdict := remembered(paths, tools):
        return verdict
    if not DEVICE.exists():
        return Verdict("tcg", False, "there is no /dev/kvm")
    files.folder(_cache(paths).parent)
    lock = os.open(_cache(paths).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if verdict := remembered(paths, tools):
            return verdict
        verdict = await _probe(paths, tools)
        files.write(_cache(paths), msgspec.json.encode(_Remembered(_key(tools), verdict)))
        return verdict
    finally:
        os.close(lock)


async def _probe(paths: Paths, tools: Tools) -> Verdict:
    machine = Machine(
        qemu=tools.qemu,
        kvm=True,
        memory=PROBE_MEMORY,
        cpus=1,
        kernel=tools.kernel.vmlinux,
        initrd=tools.initrd,
        command_line=kernel_command_line(True, None),
    )
    files.folder(paths.run)
    folder = Path(tempfile.mkdtemp(prefix="probe-", dir=paths.run))
    job = Job(
        folder=folder,
        log=folder / "log",
        user=PROBE_USER,
        limits=Limits(boot=BOOT_DEADLINE),
        probe=True,
        start=b"-",
    )
    try:
        await relay.launch(tools.relay, machine, job)
        verdict = Verdict("kvm", True, "a guest booted under KVM")
    except GemelError as error:
        details = (error.details or error.brief).strip()[-2000:]
        verdict = Verdict("tcg", False, "/dev/kvm is there, but no guest boots with it", details)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(relay.END_TIMEOUT):
                await relay.ended(folder)
        files.remove(folder)
    return verdict
