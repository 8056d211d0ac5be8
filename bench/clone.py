"""API create to first HTTP answer: containers; micro VMs that stood by, cloned, cold; in turns.

usage (as root): PYTHONPATH=src:. python -m bench.clone [ROUNDS]
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time

from tests.conftest import _isolate
from tests.engine import IMAGE, EngineProcess

_SERVER = "mkdir /w; echo fine > /w/index.html; exec httpd -f -p 80 -h /w"
_CASES = {
    "container": {},
    "micro VM, stood by": {"Runtime": "microvm"},
    "micro VM, cloned": {"Runtime": "microvm"},
    "micro VM, cold": {"Runtime": "microvm"},
}
_OFF = {"micro VM, cloned": "gemel.standby", "micro VM, cold": "gemel.snapshot"}
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
_DEADLINE = 120.0


def _ready(engine: EngineProcess) -> bool:
    """Whether a VM stands by."""
    try:
        found = (engine.paths.run / "standby").glob("*/guest.log")
        return any("rehearsed" in one.read_text() for one in found)
    except OSError:
        return False


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 80), timeout=1.0) as connection:
            connection.sendall(_REQUEST)
            return connection.recv(64).startswith(b"HTTP/1.")
    except OSError:
        return False


def _once(engine: EngineProcess, case: str, number: int) -> float:
    """Seconds of one round."""
    name = f"bench{number}"
    request = {"Image": IMAGE, "Cmd": ["sh", "-c", _SERVER], "HostConfig": _CASES[case]}
    if label := _OFF.get(case):
        request["Labels"] = {label: "off"}
    if case.endswith("stood by") and number:
        end = time.monotonic() + _DEADLINE
        while not _ready(engine) and time.monotonic() < end:
            time.sleep(0.05)
    begin = time.monotonic()
    engine.ok("POST", f"/containers/create?name={name}", request)
    engine.ok("POST", f"/containers/{name}/start")
    told = engine.ok("GET", f"/containers/{name}/json")
    address = told["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    while not _answers(address):
        if time.monotonic() - begin > _DEADLINE:
            raise SystemExit(f"{case}: no answer in {_DEADLINE:g} s")
        time.sleep(0.002)
    taken = time.monotonic() - begin
    wanted = {"micro VM, cold": ["cold"], "container": [""]}.get(case, ["cloned"])
    if case.endswith("stood by") and number:
        wanted = ["cloned", "it stood by"]
    if [told["Boot"], told["BootReason"]][: len(wanted)] != wanted:
        print(f"{case}: {told['Boot']} ({told['BootReason']})", file=sys.stderr)
        taken = float("nan")
    engine.ok("DELETE", f"/containers/{name}?force=1")
    return taken


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    os.environ["GEMEL_MICROVM_STANDBY"] = "1"
    _isolate()
    engine = EngineProcess()
    try:
        engine.start()
        engine.import_busybox()
        taken: dict[str, list[float]] = {case: [] for case in _CASES}
        for case in _CASES:
            _once(engine, case, 0)  # the first of each makes what the others use
        for number in range(1, rounds + 1):
            for case, times in taken.items():
                times.append(_once(engine, case, number))
    finally:
        engine.stop()
    print(f"{rounds} rounds, load {' '.join(f'{x:.1f}' for x in os.getloadavg())}; ms")
    for case, times in taken.items():
        good = sorted(1000 * t for t in times if t == t) or [float("nan")]
        print(
            f"{case:18} median {statistics.median(good):6.0f}   "
            f"least {good[0]:6.0f}   most {good[-1]:6.0f}"
        )


if __name__ == "__main__":
    main()
