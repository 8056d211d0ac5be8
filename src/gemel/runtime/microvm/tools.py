"""The programs and files that micro VMs need, found once."""

from __future__ import annotations

import resource
from pathlib import Path

import msgspec

from gemel.errors import Unavailable
from gemel.host.run import find, run
from gemel.model.paths import Paths
from gemel.runtime.microvm import artifacts
from gemel.runtime.microvm.cmdline import tsc_khz
from gemel.runtime.microvm.initrd import ensure_initrd
from gemel.runtime.microvm.kernel import Progress, ensure_kernel
from gemel.runtime.microvm.kernels import Kernel
from gemel.runtime.microvm.machine import FileServer

QEMU = "qemu-system-x86_64"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. tsc_khz: the host's clock rate, None where it cannot be told."""

    qemu: str
    qemu_version: str
    relay: Path
    discard: Path
    kernel: Kernel
    initrd: Path
    tsc_khz: int | None
    file_server: FileServer | None


def qemu_program() -> str:
    """Path of QEMU. Raises Unavailable."""
    if program := find(QEMU):
        return program
    raise Unavailable(
        "micro VMs need QEMU, which is not installed",
        details=f"{QEMU} is not in PATH",
        resolution="apt-get install qemu-system-x86, or use runtime: container",
    )


async def qemu_version(program: str) -> str:
    """First line of ``qemu --version``."""
    result = await run([program, "--version"], timeout=20)
    return result.stdout.decode("utf-8", "replace").split("\n", 1)[0]


async def find_tools(paths: Paths, progress: Progress) -> Tools:
    """Finds or makes all. Raises Unavailable, Failed."""
    qemu = qemu_program()
    kernel = await ensure_kernel(paths, progress)
    return Tools(
        qemu=qemu,
        qemu_version=await qemu_version(qemu),
        relay=artifacts.find("relay"),
        discard=artifacts.find("discard.so"),
        kernel=kernel,
        initrd=await ensure_initrd(paths, kernel, artifacts.find("agent")),
        tsc_khz=await tsc_khz(paths.run / "tsc-khz"),
        file_server=await find_file_server(),
    )


async def find_file_server() -> FileServer | None:
    """virtiofsd, if there is one: the one in C (with QEMU to 7.2) or the one in Rust."""
    program = find("virtiofsd")
    if program is None:
        return None
    help_text = await run([program, "--help"], timeout=20, check=False)
    rust = b"--shared-dir" in help_text.stdout + help_text.stderr
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return FileServer(program, rust, 1_000_000 if hard == resource.RLIM_INFINITY else hard)
