"""Reading control groups, version 1 and 2: usage, members, out of memory."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from gemel.model.instance import Usage

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

#: Values of this size mean "no limit" (v1 has the highest page, v2 the word max).
_UNLIMITED = 1 << 62

#: Seconds in which the kernel lets go of a group's last process.
_LET_GO = 10.0

_STAND_IN = Path("/sys/fs/cgroup/unified")


class Cgroups:
    """Where the hierarchies are mounted, found once."""

    def __init__(self, mountinfo: str | None = None) -> None:
        """mountinfo: text of /proc/self/mountinfo, read here if not given."""
        text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
        self.v1: dict[str, Path] = {}
        unified: Path | None = None
        for line in text.splitlines():
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            place = Path(left.split(" ")[4].replace("\\040", " "))
            if kind == "cgroup2":
                unified = place
            elif kind == "cgroup":
                for option in options.split(" ")[-1].split(","):
                    self.v1.setdefault(option, place)
        self.v2 = unified if "memory" not in self.v1 else None

    def folder(self, controller: str, group: str) -> Path:
        """Folder of ``group`` (``/parent/child``) for a controller."""
        base = self.v2 or self.v1.get(controller) or self.v1.get("memory") or Path("/nowhere")
        return base / group.lstrip("/")

    def folders(self, group: str) -> list[Path]:
        """All folders that a group may have.

        With version 1 crun also makes one under ``unified``, a plain folder of the
        tmpfs when the unified hierarchy is not mounted there (any more).
        """
        bases = {self.v2} if self.v2 else set(self.v1.values())
        if not self.v2:
            bases |= {place.parent / "unified" for place in self.v1.values()}
        return [base / group.lstrip("/") for base in bases if base]

    def remove(self, group: str) -> None:
        """Removes the (empty) folders of a group, those inside it first; what is in use stays.

        Blocks: the kernel takes a moment to let go of the last process.
        """
        end = time.monotonic() + _LET_GO
        for folder in self.folders(group):
            for path, _, names in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    if "unified" in folder.parts and "cgroup.procs" in names and not self.v2:
                        os.unlink(os.path.join(path, "cgroup.procs"))  # a plain file of crun's
                    _rmdir(path, end)
        self.remove_empty(group)

    def remove_empty(self, group: str) -> None:
        """Removes the folders of a group in which there is nothing more."""
        for folder in self.folders(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if self.v2 is None and not os.path.ismount(_STAND_IN):
            # a hybrid hierarchy whose version 2 is hidden: crun makes plain files there
            folder = _STAND_IN / group.lstrip("/")
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").unlink(missing_ok=True)
                folder.rmdir()

    def members(self, group: str) -> list[int]:
        """Pids in the group and in those inside it."""
        found: set[int] = set()
        for path, _, _ in os.walk(self.folder("pids", group)):
            found.update(int(line) for line in _read(Path(path) / "cgroup.procs").split())
        return sorted(found)

    def oom_kills(self, group: str) -> int:
        """How many processes the kernel has killed for want of memory."""
        folder = self.folder("memory", group)
        facts = _table(folder / ("memory.events" if self.v2 else "memory.oom_control"))
        return facts.get("oom_kill", 0)

    def frozen(self, group: str) -> bool:
        """Whether the group is paused."""
        if self.v2:
            return _table(self.folder("freezer", group) / "cgroup.events").get("frozen", 0) == 1
        return _read(self.folder("freezer", group) / "freezer.state").strip() in (
            "FROZEN",
            "FREEZING",
        )

    def usage(self, group: str) -> Usage:
        """What the group uses now."""
        return self._usage2(group) if self.v2 else self._usage1(group)

    def _usage1(self, group: str) -> Usage:
        memory = self.folder("memory", group)
        pids = self.folder("pids", group)
        accounting = self.folder("cpuacct", group)
        times = _table(accounting / "cpuacct.stat")
        read, written = _blkio(self.folder("blkio", group) / "blkio.throttle.io_service_bytes")
        used = _number(memory / "memory.usage_in_bytes")
        return Usage(
            cpu_ns=_number(accounting / "cpuacct.usage"),
            system_ns=times.get("system", 0) * _TICK,
            user_ns=times.get("user", 0) * _TICK,
            memory=used,
            memory_peak=_number(memory / "memory.max_usage_in_bytes"),
            memory_limit=_number(memory / "memory.limit_in_bytes"),
            memory_stats=_table(memory / "memory.stat"),
            pids=_number(pids / "pids.current"),
            pids_limit=_number(pids / "pids.max"),
            read_bytes=read,
            write_bytes=written,
            true_memory=used,
        )

    def _usage2(self, group: str) -> Usage:
        folder = self.folder("memory", group)
        times = _table(folder / "cpu.stat")
        used = _number(folder / "memory.current")
        read = written = 0
        for line in _read(folder / "io.stat").splitlines():
            facts = dict(part.split("=", 1) for part in line.split()[1:] if "=" in part)
            read += int(facts.get("rbytes", 0))
            written += int(facts.get("wbytes", 0))
        return Usage(
            cpu_ns=times.get("usage_usec", 0) * 1000,
            system_ns=times.get("system_usec", 0) * 1000,
            user_ns=times.get("user_usec", 0) * 1000,
            memory=used,
            memory_peak=_number(folder / "memory.peak"),
            memory_limit=_number(folder / "memory.max"),
            memory_stats=_table(folder / "memory.stat"),
            pids=_number(folder / "pids.current"),
            pids_limit=_number(folder / "pids.max"),
            read_bytes=read,
            write_bytes=written,
            true_memory=used,
        )


def _rmdir(path: str, end: float) -> None:
    """Removes a group in which nothing runs any more, until then. Raises OSError."""
    while True:
        try:
            return os.rmdir(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    """A file's number; 0 for none and for no limit."""
    text = _read(path).strip()
    value = int(text) if text.isdecimal() else 0
    return 0 if value >= _UNLIMITED else value


def _table(path: Path) -> dict[str, int]:
    """Lines of ``key number``."""
    found: dict[str, int] = {}
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdecimal():
            found[key] = int(value)
    return found


def _blkio(path: Path) -> tuple[int, int]:
    read = written = 0
    for line in _read(path).splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1] == "Read":
            read += int(parts[2])
        elif len(parts) == 3 and parts[1] == "Write":
            written += int(parts[2])
    return read, written
