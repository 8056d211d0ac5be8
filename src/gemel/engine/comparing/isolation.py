"""What a program sees from inside an instance: the probe's line (guest/probe), read and compared
with what the host itself is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

from gemel.errors import Failed
from gemel.model.comparison import Isolation
from gemel.model.instance import RuntimeName

#: Where the probe lies in the instance.
INSIDE = "/.gemel-probe"
#: Names of capabilities by their bit (capability.h).
_CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip


class Seen(msgspec.Struct, frozen=True, rename="pascal"):
    """The probe's line. It comes from an image's program: nothing in it is trusted."""

    kernel: str
    capabilities: str
    seccomp: str
    boot_id: str
    mem_total: str
    processors: int
    command_line: str
    product: str
    partitions: int
    modules: int
    load_average: str
    allowed: list[str]
    tried: int


class Host(msgspec.Struct, frozen=True):
    """The same facts of this machine."""

    kernel: str
    boot_id: str
    mem_total: str
    processors: int
    command_line: str
    product: str
    partitions: int


def read(output: bytes) -> Seen:
    """The probe's line. Raises Failed."""
    for line in output[: 64 << 10].splitlines():
        if line.startswith(b'{"Kernel"'):
            try:
                return msgspec.json.decode(line, type=Seen)
            except msgspec.DecodeError as error:
                raise Failed("the probe's answer is not understood", str(error)) from error
    raise Failed("the probe told nothing", details=output[-400:].decode("utf-8", "replace").strip())


def here() -> Host:
    """This machine's facts; files that are not there count as empty."""
    return Host(
        kernel=platform.release(),
        boot_id=_head("/proc/sys/kernel/random/boot_id"),
        mem_total=_mem_total(),
        processors=os.cpu_count() or 1,
        command_line=_head("/proc/cmdline"),
        product=_head("/sys/class/dmi/id/product_name"),
        partitions=_head_count("/proc/partitions"),
    )


def _head(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").split("\n", 1)[0][:4095]
    except OSError:
        return ""


def _head_count(path: str) -> int:
    try:
        return Path(path).read_text("utf-8", "replace").count("\n")
    except OSError:
        return -1


def _mem_total() -> str:
    line = _head("/proc/meminfo")
    return line.partition(":")[2].strip() if line.startswith("MemTotal") else ""


def judge(runtime: RuntimeName, seen: Seen, host: Host) -> Isolation:
    """What that means: what of the host is visible, what reaches a kernel, and whose."""
    shared = seen.boot_id == host.boot_id
    facts = []
    if shared:
        facts.append("its kernel")
    for name, mine, its in (
        ("its memory", host.mem_total, seen.mem_total),
        ("its kernel's command line", host.command_line, seen.command_line),
        ("its product name", host.product, seen.product),
    ):
        if mine and mine == its:
            facts.append(name)
    if seen.processors == host.processors and shared:
        facts.append("its processors")
    if seen.partitions == host.partitions and seen.partitions > 2 and shared:
        facts.append("its disks")
    if shared and seen.load_average:
        facts.append("its load")
    return Isolation(
        runtime=runtime,
        kernel=seen.kernel[:120],
        shares_kernel=shared,
        capabilities=capabilities(seen.capabilities),
        seccomp=seen.seccomp.strip() == "2",
        reaches=sorted(name[:40] for name in seen.allowed[:64]),
        tried=min(max(seen.tried, 0), 64),
        host_facts=facts,
    )


def capabilities(mask: str) -> list[str]:
    """Names of the bits that are set in a hexadecimal mask of /proc/PID/status."""
    try:
        bits = int(mask[:32], 16)
    except ValueError:
        return []
    return [name for n, name in enumerate(_CAPABILITIES) if bits >> n & 1]
