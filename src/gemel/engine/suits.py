"""Whether an image and the limits of a container suit this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gemel.errors import InvalidInput, NotFound
from gemel.image.manifest import own_platform, parse_platform
from gemel.model.docker import HostConfig
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
