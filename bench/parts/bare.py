"""What gemel's way of running a micro VM costs: the same service beside a bare QEMU's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.request import urlopen

from bench.bareguest import ADDRESS, BareGuest
from bench.measure import Aim, Case, Once, in_turns, timed
from bench.parts.vm import _DEADLINE, _address
from bench.peers import IMAGE, Field, Gemel
from bench.wire import first_answer
from gemel.host import procs

_MIB = 1 << 20
_BIG = 32 * _MIB
_REQUESTS, _AT_ONCE = 500, 8
#: busybox's httpd, with programs that a request runs.
_SERVICE = f"""
mkdir -p /www/cgi-bin /data
echo hello > /www/index.html
head -c {_BIG} /dev/zero > /www/big
cat > /www/cgi-bin/work <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
case $QUERY_STRING in
cpu) head -c {16 * _MIB} /dev/zero | sha256sum ;;
programs) i=0; while [ $i -lt 60 ]; do /bin/busybox true; i=$((i+1)); done; echo done ;;
disk) cd /data; for i in $(seq 100); do echo x > f$i; done; rm f*
    dd if=/dev/zero of=big bs=64k count=400 2>/dev/null; sync big
    dd if=big of=/dev/null bs=64k 2>/dev/null; rm big; echo done ;;
esac
END
chmod 755 /www/cgi-bin/work
exec httpd -f -p 80 -h /www
"""


def _requests(address: str) -> float:
    """Seconds of so many requests, eight at a time; each with a connection of its own."""

    def ask() -> None:
        with socket.create_connection((address, 80), timeout=_DEADLINE) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while connection.recv(4096):
                pass

    def work() -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for done in [pool.submit(ask) for _ in range(_REQUESTS)]:
                done.result()

    return timed(work)


def _get(address: str, path: str, least: int) -> float:
    def work() -> None:
        with urlopen(f"http://{address}{path}", timeout=_DEADLINE) as answer:
            size = 0
            while piece := answer.read(_MIB):
                size += len(piece)
        if size < least:
            raise RuntimeError(f"{address}{path}: only {size} bytes came")

    return timed(work)


_TASKS: dict[str, Callable[[str], float]] = {
    f"{_REQUESTS} requests of a small page": _requests,
    "32 MB over the network": lambda address: _get(address, "/big", _BIG),
    "16 MB hashed": lambda address: _get(address, "/cgi-bin/work?cpu", 64),
    "60 programs started": lambda address: _get(address, "/cgi-bin/work?programs", 4),
    "100 files and 25 MB written, synced, read": lambda address: _get(
        address, "/cgi-bin/work?disk", 4
    ),
}


class _Vm(NamedTuple):
    """A micro VM that serves. pids: its VMM and what helps it."""

    address: str
    pids: tuple[int, ...]
    id: str = ""


def _start(gemel: Gemel, snapshot: str) -> _Vm:
    """A micro VM, a clone (the default) or booted cold (``off``)."""
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", _SERVICE],
        "HostConfig": {"Runtime": "microvm"},
        "Labels": {"gemel.snapshot": snapshot},
    }
    id = gemel.api.call("POST", "/containers/create", body)["Id"]
    gemel.api.call("POST", f"/containers/{id}/start")
    told = gemel.api.call("GET", f"/containers/{id}/json")
    pids = (gemel.engine.paths.instance_run(id) / "pid").read_text().split()
    return _Vm(_address(told), tuple(map(int, pids)), id)


def _cases(name: str, vms: Mapping[str, _Vm]) -> tuple[Case, Case]:
    """What the clock says, and what the VM cost the host's processors (filled by the calls)."""
    clock = Case("bare", name, aims=[Aim(1.1, "bare QEMU")])
    cost = Case("bare", f"{name}: processor time", aims=[Aim(1.1, "bare QEMU")])
    cost.series = {who: [] for who in vms}
    return clock, cost


def _once(task: Callable[[str], float], vm: _Vm, costs: list[float]) -> Once:
    def work() -> float:
        before = procs.cpu_ns(vm.pids)
        taken = task(vm.address)
        costs.append((procs.cpu_ns(vm.pids) - before) / 1e9)
        return taken

    return work


def _measure(vms: Mapping[str, _Vm], rounds: int, seconds: float) -> list[Case]:
    cases = []
    for name, task in _TASKS.items():
        clock, cost = _cases(name, vms)
        calls = {who: _once(task, vm, cost.series[who]) for who, vm in vms.items()}
        cases += [in_turns(clock, calls, rounds, seconds / len(_TASKS)), cost]
        for costs in cost.series.values():
            del costs[0]  # was to warm up
    return cases


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """All run all the time, and are asked in turns."""
    gemel = field.gemel()
    vms = {"gemel": _start(gemel, "on"), "gemel, booted cold": _start(gemel, "off")}
    bare = None
    try:
        image = gemel.api.call("GET", f"/images/{IMAGE}/json")["Id"].removeprefix("sha256:")
        paths = gemel.engine.paths
        root = paths.images / "squashfs" / f"{image}.sqfs"
        bare = BareGuest(paths, field.folder / "bare", root, _SERVICE)
        vms["bare QEMU"] = _Vm(ADDRESS, (bare.pid,))
        for vm in vms.values():
            first_answer(vm.address, 80, _DEADLINE)
        return _measure(vms, rounds, seconds)
    finally:
        if bare is not None:
            bare.stop()
        for vm in vms.values():
            if vm.id:
                gemel.api.call("DELETE", f"/containers/{vm.id}?force=1")
