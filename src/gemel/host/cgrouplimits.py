"""Limits of a control group as Docker names them, for version 1 and 2."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gemel.errors import Failed
from gemel.host import cgroups


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a group of processes may use; 0 or empty: no limit. Bytes and microseconds."""

    memory: int = 0
    memory_swap: int = 0
    """Memory and swap together; -1: any amount of swap; 0: twice the memory."""
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""

    def any(self) -> bool:
        """Whether there is a limit at all."""
        return self != Limits()


def make(name: str, limits: Limits, root: Path = cgroups.ROOT) -> list[tuple[Path, Path]]:
    """Makes the group ``name`` with its limits; its folders, each with its hierarchy's mount.

    Blocks. Raises Failed for a limit that the host cannot hold; then no group is left.
    """
    try:
        cgroups.make(name, root=root)
        found = [(folder, _top(folder, name)) for folder in cgroups.folders(name, root)]
        if limits.cpuset_cpus or limits.cpuset_mems:
            found += _cpuset(name, root)
        for file, text in _settings(limits):
            _set([folder for folder, _ in found], file, text)
    except BaseException:
        remove(name, root)
        raise
    return found


def remove(name: str, root: Path = cgroups.ROOT) -> None:
    """Removes the empty group. Blocks. Raises Failed if it is in use."""
    cgroups.remove(name, root=root)
    if not cgroups.is_v2(root):
        cgroups.remove_folder(root / "cpuset" / name, root)


def _top(folder: Path, name: str) -> Path:
    """The hierarchy's mount that a group's folder is below."""
    return folder.parents[len(Path(name).parts) - 1]


def _settings(limits: Limits) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """For each limit the files of version 1 and 2, and what is written to them."""
    made: list[tuple[tuple[str, str], tuple[str, str]]] = []
    if memory := limits.memory:
        made.append((("memory.limit_in_bytes", "memory.max"), (str(memory), str(memory))))
        both = limits.memory_swap or 2 * memory
        if both > 0:
            names = ("memory.memsw.limit_in_bytes?", "memory.swap.max?")
            made.append((names, (str(both), str(max(both - memory, 0)))))
    if shares := limits.cpu_shares:
        weight = 1 + (max(shares, 2) - 2) * 9999 // 262142
        made.append((("cpu.shares", "cpu.weight"), (str(shares), str(weight))))
    period = limits.cpu_period or cgroups.PERIOD_US
    if limits.cpu_period:
        made.append((("cpu.cfs_period_us", ""), (str(period), "")))
    if limits.cpu_quota > 0:
        names = ("cpu.cfs_quota_us", "cpu.max")
        made.append((names, (str(limits.cpu_quota), f"{limits.cpu_quota} {period}")))
    for name, text in (("cpuset.cpus", limits.cpuset_cpus), ("cpuset.mems", limits.cpuset_mems)):
        if text:
            made.append(((name, name), (text, text)))
    return made


def _set(folders: list[Path], names: tuple[str, str], texts: tuple[str, str]) -> None:
    """Writes a limit to the file that there is; a name with ``?`` may be missing (no swap)."""
    optional = any(name.endswith("?") for name in names)
    for name, text in zip(names, texts, strict=True):
        for folder in folders:
            file = folder / name.rstrip("?")
            if not name or not file.is_file():
                continue
            try:
                file.write_text(text)
            except OSError as error:
                raise Failed(f"cannot set {file.name} to {text}", details=str(error)) from error
            return
    if not optional and any(names):
        raise Failed(
            f"this machine cannot limit {names[0].partition('.')[0]}",
            details=f"no {' or '.join(filter(None, names))}",
            resolution="leave that limit out",
        )


def _cpuset(name: str, root: Path) -> list[tuple[Path, Path]]:
    """A group of version 1's cpuset, where each level must be given CPUs and memory nodes."""
    top = root / "cpuset"
    if cgroups.is_v2(root) or not top.is_dir():
        return []
    here = top
    for part in Path(name).parts:
        above, here = here, here / part
        here.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not (here / file).read_text().strip():
                (here / file).write_text((above / file).read_text())
    return [(here, top)]
