"""Files on each kind of storage of a micro VM, timed inside it."""

from __future__ import annotations

from bench.measure import Case, Once, in_turns
from bench.peers import IMAGE, Field, Peer

_WORK = """
    cd /data && read began _ < /proc/uptime
    for i in $(seq 300); do echo x > f$i; done
    cat f* > /dev/null; rm f*
    dd if=/dev/zero of=big bs=64k count=200 2> /dev/null && sync big
    dd if=big of=/dev/null bs=64k 2> /dev/null; rm big
    read ended _ < /proc/uptime
    echo "$began $ended"
"""


def _once(peer: Peer, runtime: str, volume: str) -> Once:
    host = {"Runtime": runtime, "Binds": [f"{volume}:/data"] if volume else []}
    script = f"mkdir -p /data; {_WORK}"
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "Tty": True, "HostConfig": host}

    def measure() -> float:
        id = peer.api.call("POST", "/containers/create", body)["Id"]
        try:
            peer.api.call("POST", f"/containers/{id}/start")
            peer.api.call("POST", f"/containers/{id}/wait")
            said = peer.api.call("GET", f"/containers/{id}/logs?stdout=1")
            began, ended = said.decode().split()
            return float(ended) - float(began)
        finally:
            peer.api.call("DELETE", f"/containers/{id}?force=1")

    return measure


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """Two volumes, the writable layer, and a container beside them."""
    gemel = field.gemel()
    options = {"bench-shared": {}, "bench-block": {"type": "block"}}
    for name, given in options.items():
        gemel.api.call("POST", "/volumes/create", {"Name": name, "DriverOpts": given})
    calls = {
        "micro VM, block volume": _once(gemel, "microvm", "bench-block"),
        "micro VM, shared volume": _once(gemel, "microvm", "bench-shared"),
        "micro VM, writable layer": _once(gemel, "microvm", ""),
        "container, volume": _once(gemel, "container", "bench-shared"),
    }
    try:
        case = Case("storage", "300 small files and 13 MB: write, read, remove")
        return [in_turns(case, calls, min(rounds, 7), seconds)]
    finally:
        for name in options:
            gemel.api.call("DELETE", f"/volumes/{name}")
