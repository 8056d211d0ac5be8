"""The parts of a run, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.measure import Case
from bench.parts import (
    api,
    bare,
    capture,
    cli,
    clones,
    compose,
    idle,
    images,
    load,
    memory,
    project,
    shop,
    storage,
    streams,
    vm,
    warm,
)
from bench.peers import Field

#: Measures: the engines, the most rounds of each case, the seconds that it may take.
Part = Callable[[Field, int, float], list[Case]]

PARTS: Mapping[str, Part] = {
    "api": api.run,
    "cli": cli.run,
    "compose": compose.run,
    "vm": vm.run,
    "bind": vm.run_bind,
    "warm": warm.run,
    "storage": storage.run,
    "bare": bare.run,
    "clones": clones.run,
    "shop": shop.run,
    "memory": memory.run,
    "project": project.run,
    "images": images.run,
    "streams": streams.run,
    "load": load.run,
    "idle": idle.run,
    "capture": capture.run,
}
