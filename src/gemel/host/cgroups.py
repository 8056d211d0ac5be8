"""Control groups, version 1, 2 or a mixture: making, limiting, emptying, removing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from gemel.errors import Failed

ROOT = Path("/sys/fs/cgroup")
#: Controllers of version 1 in which a group is made.
V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")
V2_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
PERIOD_US = 100_000
_POLL = 0.005


def is_v2(root: Path = ROOT) -> bool:
    """Whether the host has the unified hierarchy alone."""
    return (root / "cgroup.controllers").exists()


def folders(name: str, root: Path = ROOT) -> list[Path]:
    """The folders of group ``name`` (a path below the root), one for each hierarchy."""
    if is_v2(root):
        return [root / name]
    found: list[Path] = []
    for controller in V1_CONTROLLERS:
        base = root / controller
        # cpu and cpuacct may be one hierarchy under two names
        if base.is_dir() and not any(base.samefile(other) for other in found):
            found.append(base)
    return [base / name for base in found]


def make(name: str, *, cpus: float | None = None, root: Path = ROOT) -> list[Path]:
    """Makes the group and gives back its cgroup.procs files. cpus: quota. Raises Failed."""
    made = folders(name, root)
    for attempt in range(3):
        try:
            for folder in made:
                folder.mkdir(parents=True, exist_ok=True)
            break
        except FileNotFoundError:  # its parent was removed meanwhile
            if attempt == 2:
                raise Failed(f"cannot make the control group {name}") from None
        except OSError as error:
            raise Failed(f"cannot make the control group {name}", details=str(error)) from error
    if is_v2(root):
        _enable(made[0], root)
    if cpus:
        _limit_cpu(made, cpus)
    return [folder / "cgroup.procs" for folder in made]


def _enable(folder: Path, root: Path) -> None:
    """Hands the controllers down to ``folder``; what the host lacks is left out."""
    for parent in reversed(folder.parents):
        if parent != root and root not in parent.parents:
            continue
        for controller in V2_CONTROLLERS:
            with contextlib.suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _limit_cpu(made: list[Path], cpus: float) -> None:
    quota = max(int(cpus * PERIOD_US), 1000)
    for folder in made:
        for file, text in (("cpu.cfs_quota_us", f"{quota}"), ("cpu.max", f"{quota} {PERIOD_US}")):
            if (folder / file).exists():
                try:
                    (folder / file).write_text(text)
                except OSError as error:
                    raise Failed("cannot limit the CPU", details=f"{file}: {error}") from error
                return
    raise Failed(
        "CPU limits are not available",
        details="no cpu controller with quotas",
        resolution="leave out `cpus`, or enable the cpu controller",
    )


def defer(name: str, root: Path = ROOT) -> None:
    """Gives the group a tenth of what others get of a CPU that all want, as far as can be had."""
    for folder in folders(name, root):
        for file, text in (("cpu.shares", "102"), ("cpu.weight", "10")):
            with contextlib.suppress(OSError):
                if (folder / file).exists():
                    (folder / file).write_text(text)


def processes(name: str, root: Path = ROOT) -> list[int]:
    """Process ids in the group (not in groups below)."""
    for folder in folders(name, root):
        with contextlib.suppress(OSError):
            return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    return []


def empty(name: str, *, timeout: float = 20.0, root: Path = ROOT) -> None:
    """Kills all processes in the group and waits until they are gone. Blocks. Raises Failed."""
    end = time.monotonic() + timeout
    while pids := processes(name, root):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise Failed(f"processes {pids} cannot be ended", details=f"control group {name}")
        time.sleep(_POLL)


def remove(name: str, *, timeout: float = 20.0, root: Path = ROOT) -> None:
    """Removes the empty group, and its parent if that is empty too. Blocks. Raises Failed."""
    for folder in folders(name, root):
        remove_folder(folder, root, timeout=timeout)


def remove_folder(folder: Path, root: Path = ROOT, *, timeout: float = 20.0) -> None:
    """Removes an empty group's folder in one hierarchy, as ``remove`` does."""
    end = time.monotonic() + timeout
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            break
        except OSError as error:  # the kernel takes a moment to let go of the last process
            if time.monotonic() > end:
                raise Failed(
                    f"cannot remove the control group {folder.name}", details=str(error)
                ) from error
            time.sleep(_POLL)
        else:
            break
    if folder.parent.parent != root.parent:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
