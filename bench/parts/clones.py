"""Many micro VMs at once: from the first create until each answers over HTTP; memory of each."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import Aim, Case, timed
from bench.parts.vm import _DEADLINE, _SERVER, _address
from bench.peers import IMAGE, Field, Gemel
from bench.wire import Api, first_answer
from gemel.host import memory

#: Requests that are under way at once.
_AT_ONCE = 32
#: Seconds after which guests have said what they have to spare.
_REST = 6.0


def _start(gemel: Gemel) -> str:
    """Makes and starts one; its id once it answers."""
    api = Api(gemel.engine.paths.socket, timeout=300)
    body = {"Image": IMAGE, "Cmd": _SERVER, "HostConfig": {"Runtime": "microvm"}}
    try:
        id = str(api.call("POST", "/containers/create", body)["Id"])
        api.call("POST", f"/containers/{id}/start")
        first_answer(_address(api.call("GET", f"/containers/{id}/json")), 80, 5 * _DEADLINE)
    finally:
        api.close()
    return id


def _remove(gemel: Gemel, id: str) -> None:
    api = Api(gemel.engine.paths.socket, timeout=300)
    try:
        api.call("DELETE", f"/containers/{id}?force=1")
    finally:
        api.close()


def _megabytes(folder: Path) -> float:
    """PSS of an instance's VMM and relay."""
    return memory.proportional(map(int, (folder / "pid").read_text().split())) / 2**20


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """``rounds`` VMs at once, once, in an engine of its own."""
    gemel = Gemel()
    made: list[str] = []
    try:
        gemel.import_busybox()
        _remove(gemel, _start(gemel))  # the template is there, as after the first one ever
        with ThreadPoolExecutor(_AT_ONCE) as pool:

            def all_up() -> None:
                made.extend(pool.map(lambda _: _start(gemel), range(rounds)))

            taken = timed(all_up)
            time.sleep(_REST)
            told = [gemel.api.call("GET", f"/containers/{id}/json") for id in made]
            sizes = [_megabytes(gemel.engine.paths.instance_run(id)) for id in made]
            list(pool.map(lambda id: _remove(gemel, id), made))
    finally:
        gemel.stop()
    up = Case("clones", f"{rounds} micro VMs at once, until each answers", aims=[Aim(10)])
    up.series["gemel"] = [taken]
    cold = sum(one["Boot"] != "cloned" for one in told)
    up.notes.append(f"{cold} of them booted cold")
    each = Case("clones", "memory of each (PSS of VMM and relay)", unit="MB", aims=[Aim(35)])
    each.series["gemel"] = sizes
    return [up, each]
