"""What a test run must leave behind: nothing."""

from __future__ import annotations

import os
from pathlib import Path

from gemel.model.paths import Paths


def processes(bases: list[Path]) -> list[str]:
    """Processes whose command line or root names one of the folders."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if any(f"{base}/" in line or line.rstrip().endswith(str(base)) for base in bases):
            found.append(f"process {entry.name}: {line[:200]}")
    return found


def mounts(bases: list[Path]) -> list[str]:
    """Mounts at or below the folders in this mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [f"mount {p}" for p in points if any(p.startswith(str(b)) for b in bases)]


def interfaces() -> list[str]:
    """Network interfaces of gemel's in this network namespace."""
    rows = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    names = [row.partition(":")[0].strip() for row in rows]
    return [f"interface {n}" for n in names if n.startswith("gm")]


def cgroups(bases: list[Path]) -> list[str]:
    """Control groups of the engines that had these folders."""
    names = {Paths(base / "root", base / "run").cgroup for base in bases}
    found = []
    for folder in Path("/sys/fs/cgroup").iterdir():
        for name in names:
            if (folder / name).is_dir():
                found.append(f"cgroup {folder / name}")
    found += [f"cgroup {n}" for n in names if (Path("/sys/fs/cgroup") / n).is_dir()]
    return found


def folders(bases: list[Path]) -> list[str]:
    """The folders themselves."""
    return [f"folder {base}" for base in bases if base.exists()]


def all(bases: list[Path], temporary: Path | None = None) -> list[str]:
    """Everything that is left. temporary: what was /var/tmp meanwhile."""
    found = processes(bases) + mounts(bases) + interfaces() + cgroups(bases) + folders(bases)
    return found + [f"file {path}" for path in (temporary.iterdir() if temporary else ())]
