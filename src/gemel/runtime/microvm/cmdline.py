"""The guest kernel's command line. Pure, but for the measuring of the clock."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gemel.errors import GemelError
from gemel.host import files
from gemel.host.run import run
from gemel.runtime.microvm import artifacts

#: For every guest. The agent is the initrd's /init; a panic ends the VM (with QEMU's -no-reboot).
_ALWAYS = (
    "panic=-1",
    "console=hvc0",  # the relay listens to it: nothing comes but what is critical
    "reboot=t",
    "random.trust_cpu=on",
    "rcupdate.rcu_expedited=1",
    "cryptomgr.notests",
    "raid=noautodetect",
    "i8042.noaux",
    "i8042.nokbd",
    "i8042.noprobe=1",
    "cgroup_no_v1=all",
    "swiotlb=noforce",
    "rdinit=/init",
    # A guest has no policies of these: without their hooks a third less code runs (and, under
    # emulation, is translated) until the service starts. Capabilities are always on.
    "lsm=landlock,yama",
    "audit=0",
    "nbd.nbds_max=1",  # one is enough for a debug session's toolbox
    "nowatchdog",
    "dummy.numdummies=0",  # who wants one makes it
)
#: Under software emulation there is no speculation to guard against, and clocks are
#: calibrated for seconds, or never, unless they are told.
_EMULATED = (
    "mitigations=off",
    "no_timer_check",
    "noreplace-smp",
    "tsc=reliable",
    "no5lvl",  # a fifth level of page tables to walk at each miss, for memory that no guest has
    # freed memory is reported to the balloon in pieces of 64 KiB and more. Under KVM it is the
    # kernel's own 2 MiB, which keeps the host's huge pages whole.
    "page_reporting.page_reporting_order=4",
)


def kernel_command_line(
    kvm: bool, tsc_khz: int | None, *, console: bool = False, quiet: bool = True
) -> str:
    """What QEMU gets as -append.

    kvm: whether the guest runs on KVM (its clock and its mitigations are left
    alone then). tsc_khz: the host's TSC rate in kHz, which an emulated guest
    sees; without it about one boot in eight hangs while calibrating.
    console: kernel messages on the first serial port.
    """
    words = list(_ALWAYS)
    if not kvm:
        words += _EMULATED
        if tsc_khz:
            words += [f"tsc_early_khz={tsc_khz}", f"lpj={tsc_khz * 4}"]  # Debian's HZ is 250
    if console:
        words += ["console=ttyS0", "earlyprintk=ttyS0"]
    if quiet:
        words += ["quiet", "loglevel=3"]
    return " ".join(words)


#: Parts of the rate within which two measurements mean the same clock.
_SAME = 1000


async def tsc_khz(kept: Path) -> int | None:
    """The host's TSC rate in kHz; None where it cannot be told. kept: a file until the reboot.

    Two measurements differ in the last digit now and then, and the command line is part of
    what VMs must have in common: every engine since the host's start says the same rate.
    """
    measured = await measure_tsc_khz()
    if measured is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        before = int(kept.read_text())
        if abs(before - measured) <= measured // _SAME:
            return before
    with contextlib.suppress(OSError):  # who may not write there asks for nothing lasting
        files.write(kept, f"{measured}\n", mode=0o644)
    return measured


async def measure_tsc_khz() -> int | None:
    """The host's TSC rate in kHz, measured (30 ms); None where it cannot be told."""
    try:
        result = await run([str(artifacts.find("tsc-khz"))], timeout=10)
        return int(result.stdout) or None
    except (GemelError, ValueError):
        return None
