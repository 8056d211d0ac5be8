"""What keeps a service from having warm replicas (``x-gemel: {snapshot: warm}``). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gemel.compose.problems import Path
from gemel.compose.project import Service
from gemel.model.instance import RuntimeName

_HERE: Path = ("x-gemel", "snapshot")


def obstacles(service: Service) -> Iterator[tuple[Path, str]]:
    """What a person has to know before it is started: where below the service, and words."""
    if service.gemel.get("snapshot") != "warm":
        return
    named = service.config.get("runtime") or ""
    if service.runtime is not RuntimeName.MICROVM:
        if named != "auto":
            yield _HERE, "only a micro VM (runtime: microvm) has warm replicas"
        return
    for index, mount in enumerate(service.config.get("volumes") or ()):
        if not isinstance(mount, dict) or mount.get("type") != "tmpfs":
            words = "a micro VM with bind mounts or volumes has no warm replicas (tmpfs is fine)"
            yield ("volumes", index), words
    for key in ("tty", "stdin_open"):
        if service.config.get(key):
            yield (key,), f"a micro VM with {key} has no warm replicas"
    if not _checked(service):
        words = "a snapshot is taken when its health check succeeds, and it has none"
        yield _HERE, f"{words} (unless its image has one)"


def _checked(service: Service) -> bool:
    if service.gemel.get("healthcheck"):
        return True
    check = service.config.get("healthcheck") or {}
    return bool(check.get("test")) and not check.get("disable") and check["test"] != ["NONE"]
