"""A guest in QEMU alone: gemel's kernel, devices and image, with a shell script as its init.

No relay, no jail, no agent, no template; nothing of gemel runs beside it or inside.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from gemel.host import namespaces, netlink
from gemel.host.netlink import Netlink
from gemel.model.paths import Paths
from gemel.runtime.microvm import disks, initrd, modules, probe, tools
from gemel.runtime.microvm.cmdline import kernel_command_line
from gemel.runtime.microvm.machine import (
    AGENT_FD,
    CONSOLE_FD,
    DEFAULT_MEMORY,
    DEFAULT_MEMORY_KVM,
    FIRST_DISK_FD,
    FIRST_TAP_FD,
    Disk,
    Machine,
    Nic,
    qemu_arguments,
)
from gemel.runtime.microvm.tools import Tools

_TAP = "gbare0"
_HOST, ADDRESS, _PREFIX = "10.99.7.1", "10.99.7.2", 24
_TUNSETIFF, _TAP_FLAGS = 0x400454CA, 0x0002 | 0x1000 | 0x4000  # TAP, NO_PI, VNET_HDR
#: What gemel gives QEMU to keep itself in bounds; a bare one has its defaults.
_OWN = {"-sandbox": None, "-accel": "tcg,thread=multi"}
_INIT = f"""#!/.gemel/busybox sh
/.gemel/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r name by; do [ "$by" ] || insmod /modules/$name.ko; done < /modules.list
mount -t squashfs -o ro /dev/vda /lower
mount -t ext4 /dev/vdb /upper
mkdir -p /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new
for folder in dev proc sys; do mount -o move /$folder /new/$folder; done
ip link set lo up
ip addr add {ADDRESS}/{_PREFIX} dev eth0
ip link set eth0 up
exec switch_root /new /bin/sh -c "$(cat /service)"
"""


def _initrd(found: Tools, service: str) -> bytes:
    """gemel's modules and busybox, with the script in the agent's place."""

    def load(name: str) -> bytes | None:
        path = found.kernel.modules / f"{name}.ko"
        return path.read_bytes() if path.is_file() else None

    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    entries = initrd.contents(_INIT.encode(), busybox, modules.plan(load))
    entries += [initrd.folder(name) for name in ("bin", "lower", "upper", "new")]
    return initrd.cpio([*entries, initrd.plain("service", service.encode())])


def _tap() -> int:
    """A tap with the host's address on it, opened."""
    namespaces.add_tap(_TAP)
    with Netlink() as kernel:
        index = socket.if_nametoindex(_TAP)
        kernel.send(netlink.add_address(index, _HOST, _PREFIX), netlink.set_up(index))
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", _TAP.encode(), _TAP_FLAGS))
    return fd


def _bare(machine: Machine, fds: Mapping[int, int]) -> list[str]:
    """gemel's arguments without what bounds its QEMU, with the files' own paths.

    fds: for each of gemel's numbers of descriptors our own.
    """
    made: list[str] = []
    places = {"/kernel": str(machine.kernel), "/initrd": str(machine.initrd)}
    words = iter(qemu_arguments(machine))
    for word in words:
        if word in _OWN:
            value, instead = next(words), _OWN[word]
            if instead is not None:
                made += [word, value if machine.kvm else instead]
        else:
            word = re.sub(r"\bfd=(\d+)", lambda found: f"fd={fds[int(found[1])]}", word)
            made.append(places.get(word, word))
    return made


class BareGuest:
    """One VM that runs ``service``, a shell script, on the image in ``root``."""

    def __init__(self, paths: Paths, folder: Path, root: Path, service: str) -> None:
        found = asyncio.run(tools.find_tools(paths, print))
        kvm = asyncio.run(probe.accelerator(paths, found)).usable_kvm
        folder.mkdir(parents=True)
        (folder / "initrd").write_bytes(_initrd(found, service))
        layer = asyncio.run(disks.ensure_layer(paths, folder / "layer"))
        machine = Machine(
            qemu=found.qemu,
            kvm=kvm,
            memory=DEFAULT_MEMORY_KVM if kvm else DEFAULT_MEMORY,
            cpus=(os.cpu_count() or 1) if kvm else 1,
            kernel=found.kernel.vmlinux,
            initrd=folder / "initrd",
            command_line=kernel_command_line(kvm, found.tsc_khz),
            disks=(Disk(root, "root"), Disk(layer, "layer", writable=True)),
            nics=(Nic(_TAP, "02:00:00:00:07:02"),),
        )
        self._process = self._start(machine, folder)

    def _start(self, machine: Machine, folder: Path) -> subprocess.Popen[bytes]:
        ours, agent = socket.socketpair()
        self._agent = ours  # nobody answers: the channel is there, and silent
        fds = {AGENT_FD: agent.detach(), FIRST_TAP_FD: _tap()}
        for number, disk in enumerate(machine.disks, FIRST_DISK_FD):
            fds[number] = os.open(disk.path, os.O_RDWR if disk.writable else os.O_RDONLY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        fds[CONSOLE_FD] = os.open(folder / "console", flags, 0o600)

        try:
            with (folder / "log").open("ab") as log:
                return subprocess.Popen(
                    _bare(machine, fds),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=tuple(fds.values()),
                )
        finally:
            for fd in fds.values():
                os.close(fd)

    @property
    def pid(self) -> int:
        """QEMU's."""
        return self._process.pid

    def stop(self) -> None:
        """Ends it; its tap goes too."""
        self._process.kill()
        self._process.wait(10)
        self._agent.close()
        deadline = time.monotonic() + 5
        while True:
            with Netlink() as kernel:
                kernel.send(netlink.delete_link(_TAP))
            if _TAP not in [name for _, name in socket.if_nameindex()]:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the interface {_TAP} does not go")
            time.sleep(0.05)
