"""What the engine says of itself and of the host (facade.System)."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Callable

from gemel import __version__
from gemel.engine import doctor, kernels
from gemel.engine.core import Core
from gemel.engine.facade import Filters, Json
from gemel.engine.records import NEVER, now
from gemel.engine.volumes import shown
from gemel.host import netstat
from gemel.host.files import disk_use, folder
from gemel.image import login

API = "1.47"
MIN_API = "1.24"


class System:
    """See facade.System. stop: called when a client asks the engine to end."""

    def __init__(self, core: Core, stop: Callable[[], None]) -> None:
        self.core = core
        self._stop = stop

    async def info(self) -> Json:
        """GET /info."""
        core = self.core
        states = [c.state.status for c in core.containers.values()]
        running, paused = states.count("running"), states.count("paused")
        system = _os_release()
        return {
            "ID": await self._identity(),
            "Name": platform.node(),
            "ServerVersion": __version__,
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(core.images.images()),
            "Driver": "squashfs+overlay",
            "DriverStatus": [],
            "DockerRootDir": str(core.paths.root),
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file"],
            },
            "MemoryLimit": True,
            "SwapLimit": True,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "Debug": False,
            "OomKillDisable": False,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "SystemTime": now(),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
            "NEventsListener": 0,
            "KernelVersion": platform.release(),
            "OperatingSystem": system.get("PRETTY_NAME", "Linux"),
            "OSVersion": system.get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "InsecureRegistryCIDRs": ["127.0.0.0/8"],
                "IndexConfigs": {},
                "Mirrors": None,
            },
            "NCPU": os.cpu_count() or 1,
            "MemTotal": netstat.host_memory(),
            "GenericResources": None,
            "Labels": [],
            "ExperimentalBuild": False,
            "Runtimes": {name.value: {"path": name.value} for name in core.runtimes}
            | {"runc": {"path": "crun"}, "crun": {"path": "crun"}, "kata": {"path": "microvm"}},
            "DefaultRuntime": "container",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "tini",
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Warnings": [],
        }

    async def _identity(self) -> str:
        path = folder(self.core.paths.root, 0o711) / "id"
        try:
            return path.read_text().strip()
        except OSError:
            import uuid

            from gemel.host import files

            files.write(path, f"{uuid.uuid4()}\n")
            return path.read_text().strip()

    async def version(self) -> Json:
        """GET /version."""
        details = {
            "ApiVersion": API,
            "MinAPIVersion": MIN_API,
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": platform.release(),
        }
        return {
            "Platform": {"Name": "gemel"},
            "Version": __version__,
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
            "Experimental": False,
            **details,
            "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
        }

    async def df(self) -> Json:
        """GET /system/df."""
        core = self.core
        from gemel.engine import inspect
        from gemel.engine.containers import sizes
        from gemel.engine.images import Images

        images = await Images(core).list(True, {})
        volumes = []
        for volume in core.volumes.values():
            place = os.path.dirname(volume.path) if volume.block else volume.path
            size = await asyncio.to_thread(disk_use, place)
            users = sum(
                1 for c in core.containers.values() if any(m.name == volume.name for m in c.mounts)
            )
            volumes.append(shown(volume) | {"UsageData": {"Size": size, "RefCount": users}})
        containers = [
            inspect.summary(core, one) | await sizes(core, one)
            for one in list(core.containers.values())
        ]
        layers = core.images.layer_sizes()
        for image in images:
            image["SharedSize"] = layers.shared.get(image["Id"], 0)
        cache = await core.images.build_cache()
        return {
            "LayersSize": layers.total,
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": _build_cache(cache),
            "BuilderSize": cache,
        }

    async def auth(self, credentials: Json) -> Json:
        """POST /auth."""
        await login.verify(self.core.images, credentials)
        return {"Status": "Login Succeeded", "IdentityToken": ""}

    async def events(self, since: int, until: int, filters: Filters) -> AsyncIterator[Json]:
        """GET /events."""
        return self.core.events.stream(since, until, filters)

    async def doctor(self) -> list[Json]:
        """See facade.System."""
        return await doctor.examine(self.core)

    def fetch_kernel(self) -> AsyncIterator[Json]:
        """See facade.System."""
        return kernels.fetch(self.core)

    async def kernels(self) -> list[Json]:
        """See facade.System."""
        return await kernels.listed(self.core)

    def build_kernel(self, jobs: int | None, use: bool) -> AsyncIterator[Json]:
        """See facade.System."""
        return kernels.build(self.core, jobs, use)

    async def use_kernel(self, name: str) -> Json:
        """See facade.System."""
        return await kernels.use(self.core, name)

    async def shutdown(self) -> None:
        """Asks the engine to end; instances go on."""
        self._stop()


def _build_cache(size: int) -> list[Json]:
    """The cache of built layers as one entry: buildah does not say which is whose."""
    if not size:
        return []
    return [
        {
            "ID": "buildah",
            "Type": "regular",
            "Description": "layers of builds",
            "InUse": False,
            "Shared": False,
            "Size": size,
            "CreatedAt": NEVER,
            "LastUsedAt": None,
            "UsageCount": 0,
            "Parents": None,
        }
    ]


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
