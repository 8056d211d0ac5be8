"""What the host is: asked once, when the runtime is made ready."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

from gemel.errors import InvalidInput, Unavailable
from gemel.host import run
from gemel.runtime.container import defaults, seccomp
from gemel.runtime.container.bundle import Host
from gemel.runtime.container.cgroup import Cgroups

#: Small static init programs, the first one found is used.
_INITS = ("/usr/bin/tini-static", "/usr/libexec/podman/catatonit", "/usr/bin/catatonit")


def check_tools() -> None:
    """Raises Unavailable for what is missing."""
    for program, package in (("crun", "crun"), ("conmon", "conmon")):
        if run.find(program) is None:
            raise Unavailable(
                f"{program} is not installed", resolution=f"apt-get install {package}"
            )
    if os.path.exists("/sys/fs/cgroup/unified/cgroup.controllers"):
        raise Unavailable(
            "crun cannot work with a hybrid cgroup hierarchy",
            details="/sys/fs/cgroup/unified is mounted beside version 1",
            resolution="start the engine with `gemel daemon`, which hides it from itself",
        )


def host(cgroups: Cgroups) -> Host:
    """The host as configurations see it."""
    machine = os.uname()
    major, minor = machine.release.split(".")[:2]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 1 << 20 if hard in (resource.RLIM_INFINITY, -1) else min(hard, 1 << 20)
    memory = cgroups.v1.get("memory")
    swap = cgroups.v2 is not None or (
        memory is not None and (memory / "memory.memsw.limit_in_bytes").exists()
    )
    return Host(
        cgroup_v2=cgroups.v2 is not None,
        swap_accounting=swap,
        machine=machine.machine,
        kernel=(int(major), int(minor.split("-")[0])),
        capabilities=_capabilities(Path("/proc/self/status").read_text()),
        nofile=most,
        init=next((path for path in _INITS if os.access(path, os.X_OK)), ""),
    )


def _capabilities(status: str) -> tuple[str, ...]:
    """Those that this process may hand on, from the text of /proc/self/status (pure)."""
    bits = -1
    for line in status.splitlines():
        if line.startswith(("CapPrm:", "CapBnd:")):
            bits &= int(line.split()[1], 16)
    return tuple(name for n, name in enumerate(defaults.ALL_CAPABILITIES) if bits >> n & 1)


class Profiles:
    """Seccomp profiles: the default one, read again when its file changes, and given ones."""

    def __init__(self, path: Path = seccomp.DEFAULT_PROFILE) -> None:
        self._path = path
        self._seen: tuple[int, int] = (0, 0)
        self._default: dict[str, Any] = {}

    def get(self, wanted: str) -> dict[str, Any] | None:
        """The profile for ``Security.seccomp``; None for ``unconfined``.

        Raises Unavailable without the default profile, InvalidInput for text that is none.
        """
        if wanted == "unconfined":
            return None
        if wanted not in ("", "default"):
            try:
                given = json.loads(wanted)
            except ValueError as error:
                raise InvalidInput("the seccomp profile is not JSON", str(error)) from error
            if not isinstance(given, dict):
                raise InvalidInput("the seccomp profile is no JSON object")
            if not isinstance(given.get("defaultAction"), str):
                raise InvalidInput("the seccomp profile has no defaultAction")
            return given
        try:
            facts = self._path.stat()
            if (facts.st_ino, facts.st_mtime_ns) != self._seen:
                self._default = seccomp.narrowed(json.loads(self._path.read_bytes()))
                self._seen = (facts.st_ino, facts.st_mtime_ns)
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(
                "the default seccomp profile cannot be read",
                details=f"{self._path}: {error}",
                resolution="apt-get install golang-github-containers-common",
            ) from error
        return self._default
