"""A toolbox beside a container: a container of its own that shares all but the files.

It joins the other's processes, network, IPC and host name; its root is the toolbox's
image under a layer in memory. So nothing is changed in the instance, nothing counts for
its limits, and a service whose image has no shell is looked at like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from gemel.errors import Conflict
from gemel.host import files, mounts, procs
from gemel.model.instance import InstanceSpec, Process, Toolbox
from gemel.model.paths import Paths
from gemel.runtime.container import bundle, defaults, execs
from gemel.runtime.container.cgroup import Cgroups
from gemel.runtime.container.crun import Crun
from gemel.runtime.container.users import Identity
from gemel.runtime.container.views import Views

#: What tools need beside Docker's default set: other processes, packets, addresses.
CAPABILITIES = frozenset(
    (
        *defaults.CAPABILITIES,
        "CAP_SYS_PTRACE",
        "CAP_NET_ADMIN",
        "CAP_DAC_READ_SEARCH",
        "CAP_SYS_RESOURCE",
    )
)
#: Where the instance's root is seen.
SERVICE = "/service"
#: Processes that one session may have.
PIDS = 1024
#: Bytes of memory that the changes to the toolbox may take.
SCRATCH = 256 << 20
#: Sessions beside all instances at the same time.
MOST = 32

Json = dict[str, Any]
Own = Callable[[Coroutine[Any, Any, None]], None]


class Debugging:
    """Starts such sessions and clears them away."""

    def __init__(self, paths: Paths, crun: Crun, views: Views, own: Own) -> None:
        """own: takes a coroutine to see to its end."""
        self._paths = paths
        self._crun = crun
        self._views = views
        self._own = own
        self._open: set[str] = set()

    def _folder(self, name: str) -> Path:
        return self._paths.run / "debug" / name

    def _group(self, name: str) -> str:
        return f"/{self._paths.cgroup}/{name}"

    async def sweep(self, cgroups: Cgroups) -> None:
        """Ends what an earlier engine left."""
        with contextlib.suppress(FileNotFoundError):
            for folder in (self._paths.run / "debug").iterdir():
                await self._clear(folder.name, cgroups)

    async def close(self, cgroups: Cgroups) -> None:
        """Ends all sessions."""
        for name in list(self._open):
            await self._clear(name, cgroups)

    async def start(
        self,
        spec: InstanceSpec,
        toolbox: Toolbox,
        process: Process,
        pid: int | None,
        host: bundle.Host,
        cgroups: Cgroups,
    ) -> execs.Session:
        """A program of the toolbox. pid: the instance's first process; None: it does not run."""
        if len(self._open) >= MOST:
            raise Conflict(
                f"there are {MOST} debug sessions already", resolution="end one of them first"
            )
        name = f"debug-{spec.id[:12]}-{secrets.token_hex(4)}"
        self._open.add(name)
        stack = contextlib.AsyncExitStack()
        try:
            stack.push_async_callback(self._clear, name, cgroups)
            view = None
            if pid is None:
                view = await stack.enter_async_context(self._views.open(spec))
            inside = 0 if pid is None else await asyncio.to_thread(procs.inner_pid, pid)
            rootfs = await asyncio.to_thread(self._mount, name, toolbox, inside)
            config = configuration(
                spec, process, rootfs, pid=pid, view=view, cgroup=self._group(name), host=host
            )
            folder = self._folder(name)
            files.write(folder / "config.json", msgspec.json.encode(config))
            arguments = ["run", "--bundle", str(folder)]
            session = await execs.launch(
                self._crun,
                arguments,
                name,
                config["process"],
                folder,
                stdin=process.stdin,
                own=self._own,
            )
        except BaseException:
            await asyncio.shield(stack.aclose())
            raise
        self._own(self._until_end(session, stack))
        return session

    async def _until_end(self, session: execs.Session, stack: contextlib.AsyncExitStack) -> None:
        async with stack:
            await session.wait()

    def _mount(self, name: str, toolbox: Toolbox, inside: int) -> Path:
        """The toolbox's root with a layer in memory.

        inside: the service's pid as it sees it, whose root /service leads to; 0 for a folder
        that something is mounted on.
        """
        if toolbox.rootfs is None:
            raise Conflict("the toolbox's image is not mounted")
        scratch = files.folder(self._folder(name) / "scratch")
        rootfs = files.folder(self._folder(name) / "rootfs")
        mounts.mount("gemel", scratch, "tmpfs", data=f"mode=755,size={SCRATCH}")
        for part in ("upper", "work"):
            (scratch / part).mkdir(mode=0o755)
        service = scratch / "upper" / SERVICE.lstrip("/")
        if inside:
            service.symlink_to(f"/proc/{inside}/root")
        else:
            service.mkdir()
        data = f"lowerdir={toolbox.rootfs},upperdir={scratch}/upper,workdir={scratch}/work"
        mounts.mount("overlay", rootfs, "overlay", data=data)
        return rootfs

    async def _clear(self, name: str, cgroups: Cgroups) -> None:
        """Ends what runs of a session, and takes its mounts and folders away. Idempotent."""
        self._open.discard(name)
        await self._crun.call("delete", "--force", name, check=False)
        await asyncio.to_thread(self._remove, name, cgroups)

    def _remove(self, name: str, cgroups: Cgroups) -> None:
        folder = self._folder(name)
        cgroups.remove(self._group(name))
        for place in ("rootfs", "scratch"):
            mounts.unmount(folder / place)
            with contextlib.suppress(FileNotFoundError):
                (folder / place).rmdir()  # never recursively: it may still be mounted
        files.remove(folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def configuration(
    spec: InstanceSpec,
    process: Process,
    rootfs: Path,
    *,
    pid: int | None,
    view: Path | None,
    cgroup: str,
    host: bundle.Host,
) -> Json:
    """The whole config.json. pid: whose namespaces are joined; view: the root of one that
    does not run."""
    return {
        "ociVersion": "1.0.2",
        "process": _process(spec, process, host),
        "root": {"path": str(rootfs), "readonly": False},
        "mounts": _mounts(view),
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": _namespaces(pid),
            "resources": {
                "devices": [dict(rule) for rule in defaults.DEVICE_RULES],
                "pids": {"limit": PIDS},
            },
            "rootfsPropagation": "rprivate",
        },
    }


def _process(spec: InstanceSpec, process: Process, host: bundle.Host) -> Json:
    caps = [name for name in host.capabilities if name in CAPABILITIES]
    made = bundle.process(
        process,
        Identity(uid=0, gid=0, groups=(), home="/root"),
        caps=caps,
        hostname=spec.hostname,
        no_new_privileges=False,
    )
    made["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 4096, "hard": host.nofile}]
    return made


def _namespaces(pid: int | None) -> list[Json]:
    found: list[Json] = [{"type": "mount"}]
    for kind, file in (("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")):
        found.append({"type": kind})
        if pid is not None:
            found[-1]["path"] = f"/proc/{pid}/ns/{file}"
    return found


def _mounts(view: Path | None) -> list[Json]:
    safe = ["nosuid", "noexec", "nodev"]
    found = [
        *bundle.first_mounts(),
        _mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777"]),
        _mount("/sys", "sysfs", "sysfs", [*safe, "ro"]),
    ]
    if view is not None:
        found += _mounts_of_view(view)
    return found


def _mounts_of_view(view: Path) -> list[Json]:
    """The root of an instance that does not run, with what its programs expect to find."""
    found = [_mount(SERVICE, "bind", str(view), ["rbind", "rprivate"])]
    if (view / "proc").is_dir() and not (view / "proc").is_symlink():
        found.append(_mount(f"{SERVICE}/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]))
    if (view / "dev").is_dir() and not (view / "dev").is_symlink():
        options = ["nosuid", "mode=755", "size=1m"]
        found.append(_mount(f"{SERVICE}/dev", "tmpfs", "tmpfs", options))
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            if os.path.exists(f"/dev/{name}"):
                target = f"{SERVICE}/dev/{name}"
                found.append(_mount(target, "bind", f"/dev/{name}", ["bind", "rprivate"]))
    return found


def _mount(target: str, kind: str, source: str, options: list[str]) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": options}
