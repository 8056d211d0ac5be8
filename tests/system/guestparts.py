"""What a guest of the agent's tests is made of: kernel, initrd, an image, a layer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gemel.host.run import find
from gemel.model.paths import Paths
from gemel.runtime.microvm import artifacts, cmdline, initrd, kernel
from gemel.runtime.microvm.kernels import Kernel
from tests.kernels import use_kernels

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def make_image(folder: Path) -> Path:
    """A squashfs with busybox and a few users."""
    root = folder / "image"
    for name in ("bin", "etc", "tmp", "data", "home/ann"):
        (root / name).mkdir(parents=True)
    busybox = find("busybox")
    assert busybox
    (root / "bin/busybox").write_bytes(Path(busybox).read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in subprocess.check_output([busybox, "--list"], text=True).split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nann:x:1001:\nwheel:x:10:ann,bob\n")
    (root / "etc/script").write_text("#!/bin/nothing\n")
    (root / "etc/script").chmod(0o755)
    (root / "etc/broken").write_text("no program\n")
    (root / "etc/broken").chmod(0o755)
    (root / "escape").symlink_to("/../../..")
    image = folder / "root.squashfs"
    subprocess.run(
        ["mksquashfs", root, image, "-noappend", "-quiet", "-all-root", "-no-progress"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return image


def make_layer(folder: Path) -> Path:
    layer = folder / "layer.ext4"
    with open(layer, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", layer], check=True, env={**os.environ, "PATH": PATH})
    return layer


async def parts(folder: Path) -> tuple[Kernel, Path, str]:
    """Kernel (fetched ahead by tests.prepare), initrd, command line."""
    paths = Paths(folder / "root", folder)
    use_kernels(paths)
    found = await kernel.ensure_kernel(paths, print)
    image = await initrd.ensure_initrd(paths, found, artifacts.find("agent"))
    line = cmdline.kernel_command_line(
        False, await cmdline.measure_tsc_khz(), console=True, quiet=False
    )
    return found, image, line
