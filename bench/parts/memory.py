"""How fast a micro VM clears memory and starts programs, beside a container."""

from __future__ import annotations

from bench.measure import Case, Once, in_turns, timed
from bench.peers import IMAGE, Field, Gemel

_CLEAR = "dd if=/dev/zero of=/dev/null bs=1M count=300"
_PROGRAMS = "i=0; while [ $i -lt 50 ]; do /bin/busybox true; i=$((i+1)); done"


def _once(gemel: Gemel, id: str, script: str) -> Once:
    def work() -> None:
        made = gemel.api.call("POST", f"/containers/{id}/exec", {"Cmd": ["sh", "-c", script]})
        gemel.api.call("POST", f"/exec/{made['Id']}/start", {"Detach": False})

    return lambda: timed(work)


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """Both run all the time; the work is an exec."""
    gemel = field.gemel()
    made: dict[str, str] = {}
    try:
        for name, runtime in (("container", ""), ("micro VM", "microvm")):
            body = {"Image": IMAGE, "Cmd": ["sleep", "3600"], "HostConfig": {"Runtime": runtime}}
            made[name] = gemel.api.call("POST", "/containers/create", body)["Id"]
            gemel.api.call("POST", f"/containers/{made[name]}/start")
        cases = []
        for what, script in (("clear 300 MB", _CLEAR), ("50 programs", _PROGRAMS)):
            calls = {name: _once(gemel, id, script) for name, id in made.items()}
            cases.append(in_turns(Case("memory", what), calls, rounds, seconds / 2))
        return cases
    finally:
        for id in made.values():
            gemel.api.call("DELETE", f"/containers/{id}?force=1")
