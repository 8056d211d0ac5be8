"""Memory of the idle engine and for each running container; whether starts stay as quick."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import Aim, Case, timed
from bench.peers import IMAGE, Field, Gemel
from bench.wire import Api

#: Containers that run at once, and how many at each end are compared.
_CONTAINERS, _END = 200, 20


def own_processes(gemel: Gemel) -> list[int]:
    """The engine, what it started (resolver, monitors), without the containers' own processes."""
    own = (f"{gemel.engine.base}/", f"{gemel.folder}/")
    parents: dict[int, int] = {}
    found = {gemel.pid}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            if any(folder in line for folder in own):
                found.add(pid)
    for pid in parents:
        above = pid
        while above > 1 and above != gemel.pid:
            above = parents.get(above, 0)
        if above == gemel.pid:
            found.add(pid)
    return sorted(found)


def proportional_mb(pids: list[int]) -> float:
    """Proportional set size of processes in MB: shared pages counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def _start(api: Api, made: list[str]) -> None:
    body = {"Image": IMAGE, "Cmd": ["sleep", "3600"]}
    made.append(api.call("POST", "/containers/create", body)["Id"])
    api.call("POST", f"/containers/{made[-1]}/start")


def _remove(gemel: Gemel, made: list[str]) -> None:
    def remove(id: str) -> None:
        api = Api(gemel.engine.paths.socket)
        try:
            api.call("DELETE", f"/containers/{id}?force=1")
        finally:
            api.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remove, made))


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """An engine of its own: nothing of other parts is in its memory."""
    gemel = Gemel()
    made: list[str] = []
    times: list[float] = []
    try:
        gemel.import_busybox()
        gemel.engine.kill_hard()  # as after a start: the import has left its buffers behind
        gemel.engine.start()
        gemel.api.close()
        gemel.api.call("GET", "/containers/json")
        idle = proportional_mb(own_processes(gemel))
        for _ in range(_CONTAINERS):
            times.append(timed(lambda: _start(gemel.api, made)))
        loaded = proportional_mb(own_processes(gemel))
    finally:
        _remove(gemel, made)
        gemel.stop()
    memory = Case("idle", "engine, nothing runs", unit="MB", aims=[Aim(80)])
    memory.series["gemel"] = [idle]
    each = Case("idle", "for each running container", unit="MB", aims=[Aim(2)])
    each.series["gemel"] = [(loaded - idle) / _CONTAINERS]
    each.notes.append(f"{_CONTAINERS} containers; engine, resolver and conmon, PSS")
    flat = Case("idle", f"create, start of containers 1 to {_CONTAINERS}")
    first, last = f"the first {_END}", f"the last {_END}"
    flat.series = {first: times[:_END], last: times[-_END:]}
    flat.aims.append(Aim(1.25, beside=first, of=last))
    return [memory, each, flat]
