"""Whether an image and the limits of a container suit this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gemel.errors import InvalidInput, NotFound
from gemel.image.manifest import own_platform, parse_platform
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.image import Image

_ONLINE = {
    "cpus": ("CPUs", Path("/sys/devices/system/cpu/online")),
    "mems": ("memory nodes", Path("/sys/devices/system/node/online")),
}
_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?\Z")


def _numbers(text: str) -> set[int] | None:
    """``0-2,4`` as a set; None if it is no such list."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.match(part.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            return None
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def check_cpusets(host: HostConfig) -> None:
    """Raises InvalidInput, in Docker's words, for processors and nodes that are not there."""
    for kind, text in (("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems)):
        if not text:
            continue
        wanted = _numbers(text)
        if wanted is None:
            raise InvalidInput(f"Invalid value {text[:60]} for cpuset {kind}")
        what, file = _ONLINE[kind]
        try:
            online = file.read_text().strip()
        except OSError:
            online = f"0-{(os.cpu_count() or 1) - 1}" if kind == "cpus" else "0"
        if not wanted <= (_numbers(online) or set()):
            raise InvalidInput(
                f"Requested {what} are not available - requested {text[:60]}, available: {online}"
            )


_ULIMITS = frozenset(
    ["as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"]
    + ["nproc", "rss", "rtprio", "rttime", "sigpending", "stack"]
)
_SYSCTLS = ("net.", "fs.mqueue.", "kernel.shm", "kernel.msg", "kernel.sem", "kernel.domainname")
#: Bytes and processors that no machine has: beyond them numbers no longer fit.
_MOST_BYTES, _MOST_CPUS = 1 << 60, 1 << 16


def check_limits(host: HostConfig) -> None:
    """Raises InvalidInput, in Docker's words, for numbers that no kernel takes."""
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidInput(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host.shm_size < 0:
        raise InvalidInput("SHM size can not be less than 0")
    for size in (host.memory, host.memory_reservation, host.memory_swap, host.shm_size):
        if size > _MOST_BYTES:
            raise InvalidInput(f"{size} bytes are more than any machine has")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidInput(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    quota = host.cpu_quota / (host.cpu_period or 100_000)
    if not 0 <= host.nano_cpus / 1e9 <= _MOST_CPUS or quota > _MOST_CPUS:
        raise InvalidInput(f"range of CPUs is from 0.01 to {os.cpu_count()}.00")
    if (host.pids_limit or 0) > 1 << 22:
        raise InvalidInput(f"{host.pids_limit} is more than the most processes of any machine")
    for limit in host.ulimits or []:
        if limit.name not in _ULIMITS:
            raise InvalidInput(f"invalid ulimit type: {limit.name}")
        if limit.soft < -1 or limit.hard < -1:
            raise InvalidInput(f"ulimit {limit.name}: a limit is -1 (none) or more")
    check_cpusets(host)


def check_kernel(request: CreateRequest, shares_kernel: bool) -> None:
    """Raises InvalidInput for names and settings that no kernel takes for an instance."""
    for name, what in ((request.hostname, "hostname"), (request.domainname, "domain name")):
        if len(name.encode(errors="replace")) > 64:
            raise InvalidInput(f"invalid {what} format: {name[:80]}")
    for key in (request.host_config or HostConfig()).sysctls or {}:
        if shares_kernel and not key.startswith(_SYSCTLS):
            raise InvalidInput(f'sysctl "{key[:80]}" is not in a separate kernel namespace')


def platform_warnings(image: Image, ref: str, platform: str) -> list[str]:
    """A warning if the image is for another kind of machine and nobody asked for that.

    Raises NotFound if another platform was asked for than the image has: clients then pull
    it. InvalidInput for what is no platform.
    """
    has = f"{image.os}/{image.architecture}"
    wanted = parse_platform(platform)
    if (wanted.os, wanted.architecture) == (image.os, image.architecture):
        return []
    if platform:
        raise NotFound(
            f"image with reference {ref} was found but its platform ({has}) does not match the "
            f"specified platform ({wanted.os}/{wanted.architecture})",
            resolution=f"pull it again with --platform {platform}",
        )
    own = own_platform()
    return [
        f"The requested image's platform ({has}) does not match the detected host platform "
        f"({own.os}/{own.architecture}) and no specific platform was requested"
    ]
