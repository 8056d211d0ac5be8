"""``docker top`` of a micro VM: ps output formed from what the guest tells. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gemel.errors import InvalidInput
from gemel.runtime.microvm.protocol import GuestProcess

Column = Callable[[GuestProcess, float], str]


def _cpu_time(process: GuestProcess) -> str:
    seconds = process.cpu_ns // 1_000_000_000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _share(process: GuestProcess, now: float) -> float:
    alive = max(now - process.started, 1.0)
    return process.cpu_ns / 1e9 / alive * 100


def _started(process: GuestProcess, now: float) -> str:
    form = "%H:%M" if now - process.started < 86400 else "%b%d"
    return time.strftime(form, time.gmtime(process.started))


_COLUMNS: dict[str, tuple[str, Column]] = {
    "user": ("USER", lambda p, now: p.user),
    "uid": ("UID", lambda p, now: str(p.uid)),
    "uname": ("UID", lambda p, now: p.user),
    "pid": ("PID", lambda p, now: str(p.pid)),
    "ppid": ("PPID", lambda p, now: str(p.parent)),
    "c": ("C", lambda p, now: str(int(_share(p, now)))),
    "pcpu": ("%CPU", lambda p, now: f"{_share(p, now):.1f}"),
    "stime": ("STIME", _started),
    "start": ("START", _started),
    "tty": ("TTY", lambda p, now: p.terminal),
    "time": ("TIME", lambda p, now: _cpu_time(p)),
    "rss": ("RSS", lambda p, now: str(p.resident // 1024)),
    "stat": ("STAT", lambda p, now: p.state),
    "s": ("S", lambda p, now: p.state),
    "comm": ("COMMAND", lambda p, now: p.command.split(" ", 1)[0].rsplit("/", 1)[-1]),
    "cmd": ("CMD", lambda p, now: p.command),
    "args": ("COMMAND", lambda p, now: p.command),
}
_SAME = {"command": "args", "%cpu": "pcpu", "tt": "tty", "state": "s", "cputime": "time"}
_EF = ("uname", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_AUX = ("user", "pid", "pcpu", "rss", "tty", "stat", "start", "time", "args")


def columns(ps_args: str) -> tuple[str, ...]:
    """The columns that ps would show for its arguments. Raises InvalidInput for unknown ones."""
    words = ps_args.replace(",", " ").split() or ["-ef"]
    if any(word in ("-o", "o", "-eo", "-ao", "axo", "-axo") for word in words):
        first = next(i for i, word in enumerate(words) if word.lstrip("-").endswith("o"))
        names = [word.split("=")[0].lower() for word in words[first + 1 :] if word[0] != "-"]
        chosen = tuple(_SAME.get(name, name) for name in names)
        unknown = [name for name in chosen if name not in _COLUMNS]
        if unknown or not chosen:
            raise InvalidInput(
                f"a micro VM's processes have no column {' '.join(unknown)}",
                resolution="columns are " + ", ".join(sorted(_COLUMNS)),
            )
        return chosen
    letters = "".join(word.lstrip("-") for word in words)
    if set(letters) <= set("auxww"):
        return _AUX
    if set(letters) <= set("efAlww"):
        return _EF
    raise InvalidInput(
        f"ps arguments {ps_args!r} are not understood for a micro VM",
        resolution="use -ef, aux, or -o with columns",
    )


def table(
    processes: Sequence[GuestProcess], ps_args: str, now: float
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows. Raises InvalidInput."""
    chosen = [_COLUMNS[name] for name in columns(ps_args)]
    rows = [[show(process, now) for _, show in chosen] for process in processes]
    return [title for title, _ in chosen], rows
