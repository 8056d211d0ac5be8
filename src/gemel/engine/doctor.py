"""``gemel doctor``: what the host offers and lacks, each with the way to mend it."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.errors import GemelError
from gemel.host.run import find, run
from gemel.model.instance import RuntimeName
from gemel.runtime.microvm import kernels
from gemel.runtime.microvm.runtime import MicroVmRuntime

OK, WARNING, MISSING = "ok", "warning", "missing"

#: program, how it tells its version, Debian package, what it is for
TOOLS = (
    ("crun", ("--version",), "crun", "runs containers"),
    ("conmon", ("--version",), "conmon", "holds a container's output and exit code"),
    ("qemu-system-x86_64", ("--version",), "qemu-system-x86", "runs micro VMs"),
    ("virtiofsd", ("--version",), "virtiofsd", "shares folders with micro VMs"),
    ("buildah", ("--version",), "buildah", "builds images"),
    ("skopeo", ("--version",), "skopeo", "pulls and pushes images"),
    ("tar2sqfs", ("--version",), "squashfs-tools-ng", "makes an image's file system"),
    ("nft", ("--version",), "nftables", "publishes ports, keeps networks apart"),
    ("mmdebstrap", ("--version",), "mmdebstrap", "makes a base image where no registry answers"),
    ("mke2fs", ("-V",), "e2fsprogs", "makes the writable disks of micro VMs"),
)  # fmt: skip


def _check(name: str, status: str, details: str, resolution: str = "") -> Json:
    return {"name": name, "status": status, "details": details, "resolution": resolution}


async def examine(core: Core) -> list[Json]:
    """All checks, in the order in which they are shown."""
    checks: list[Callable[[], Awaitable[list[Json]]]] = [
        _privileges,
        _kernel,
        _cgroups,
        _tools,
        lambda: _disk(core),
        lambda: _accelerator(core),
        lambda: _standby(core),
        lambda: _guest_kernel(core),
        lambda: _network(core),
    ]
    result: list[Json] = []
    for check in checks:
        try:
            result += await check()
        except GemelError as error:
            result.append(_check("check", WARNING, error.brief, error.resolution))
    return result


async def _privileges() -> list[Json]:
    if os.geteuid() == 0:
        return [_check("privileges", OK, "the engine runs as root")]
    return [_check("privileges", MISSING, "the engine does not run as root", "start it as root")]


async def _kernel() -> list[Json]:
    known = Path("/proc/filesystems").read_text().split()
    result = [_check("kernel", OK, platform.release())]
    for name, use in (("overlay", "writable layers"), ("squashfs", "images")):
        if name in known or await _module(name):
            result.append(_check(f"kernel: {name}", OK, use))
        else:
            result.append(
                _check(f"kernel: {name}", MISSING, f"needed for {use}", f"modprobe {name}")
            )
    for device, use, mend in (
        ("/dev/net/tun", "micro VMs' network", "modprobe tun"),
        ("/dev/loop-control", "images", "modprobe loop"),
    ):
        there = os.path.exists(device)
        status = OK if there else MISSING
        result.append(_check(f"kernel: {device}", status, use, "" if there else mend))
    return result


async def _module(name: str) -> bool:
    if find("modprobe") is None:
        return False
    return (await run(["modprobe", "-n", name], check=False, timeout=10)).status == 0


async def _cgroups() -> list[Json]:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return [_check("cgroups", OK, "version 2")]
    if os.path.isdir("/sys/fs/cgroup/memory"):
        return [
            _check(
                "cgroups",
                OK,
                "version 1; limits hold, pressure figures are missing",
                "boot with systemd.unified_cgroup_hierarchy=1 for version 2",
            )
        ]
    return [
        _check(
            "cgroups", MISSING, "no control groups are mounted",
            "mount -t cgroup2 none /sys/fs/cgroup",
        )
    ]  # fmt: skip


async def _tools() -> list[Json]:
    return list(await asyncio.gather(*(_tool(*tool) for tool in TOOLS)))


async def _tool(program: str, args: tuple[str, ...], package: str, use: str) -> Json:
    path = find(program)
    if path is None:
        return _check(program, MISSING, f"it {use}", f"apt-get install {package.split()[0]}")
    done = await run([path, *args], check=False, timeout=20)
    found = re.search(r"\d+\.\d[\w.~+-]*", (done.stdout + done.stderr).decode("utf-8", "replace"))
    return _check(program, OK, f"{found[0] if found else 'found'}: {use}")


async def _disk(core: Core) -> list[Json]:
    usage = shutil.disk_usage(core.paths.root)
    text = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB at {core.paths.root}"
    if usage.free < 2_000_000_000:
        return [_check("disk", WARNING, text, "`gemel image prune`, or another --root")]
    return [_check("disk", OK, text)]


async def _accelerator(core: Core) -> list[Json]:
    runtime = core.runtimes[RuntimeName.MICROVM]
    examine = getattr(runtime, "verdict", None)
    if examine is None:
        return []
    verdict = await examine()
    if verdict.usable_kvm:
        return [_check("micro VMs", OK, f"KVM: {verdict.reason}")]
    return [
        _check(
            "micro VMs",
            WARNING,
            f"run under software emulation (TCG): {verdict.reason}\n{verdict.details}".strip(),
            "for speed, give this machine /dev/kvm (nested virtualisation in a VM)",
        )
    ]


async def _standby(core: Core) -> list[Json]:
    runtime = core.runtimes[RuntimeName.MICROVM]
    if not isinstance(runtime, MicroVmRuntime):
        return []
    return [_check("standby", OK, runtime.boots.standbys.told())]


async def _guest_kernel(core: Core) -> list[Json]:
    used = await asyncio.to_thread(kernels.current, core.paths)
    if used is None:
        return [_check("guest kernel", OK, "none yet; the first micro VM fetches it")]
    if used.own:
        return [_check("guest kernel", OK, f"{used.name} {used.version}, built by gemel")]
    return [
        _check(
            "guest kernel",
            OK,
            f"{used.name} {used.version}, the distribution's\n"
            "`gemel kernel build` makes one that boots faster and takes less memory",
        )
    ]


async def _network(core: Core) -> list[Json]:
    subnet, _ = core.net.allocate_subnet(list(core.networks.values()))
    result = [_check("addresses", OK, f"the next network gets {subnet}")]
    for finding in await core.net.findings():
        result.append(_check(finding.name, finding.status, finding.details, finding.resolution))
    return result
