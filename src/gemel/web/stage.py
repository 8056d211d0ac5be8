"""The instances: their state, and what they use over time. Looked at while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from typing import Any

import msgspec

from gemel.errors import GemelError
from gemel.web.hub import Hub
from gemel.web.upstream import Upstream, path

log = logging.getLogger("gemel.web")

#: Seconds between two looks; points of a curve; instances that are shown.
PERIOD, POINTS, MOST = 2.0, 180, 500

_SAMPLE = re.compile(rb'^gemel_instance_(\w+)\{name="((?:[^"\\]|\\.)*)".*\} (\S+)$', re.MULTILINE)
_WANTED = frozenset(
    (
        "cpu_seconds_total", "memory_bytes", "memory_true_bytes", "memory_limit_bytes",
        "processes", "restarts_total", "uptime_seconds",
    )
)  # fmt: skip
_LABELS = "com.docker.compose."

Figures = dict[str, dict[str, float]]


def figures(page: bytes) -> Figures:
    """What Prometheus' text says of each instance, by its name and the figure's."""
    found: Figures = {}
    for kind, name, value in _SAMPLE.findall(page):
        if (figure := kind.decode()) in _WANTED:
            try:
                found.setdefault(name.decode(), {})[figure] = float(value)
            except ValueError:
                continue
    return found


class Curve:
    """CPU in per cent of one core, and true memory in bytes, over time."""

    def __init__(self) -> None:
        self.cpu: deque[float] = deque(maxlen=POINTS)
        self.memory: deque[int] = deque(maxlen=POINTS)
        self._before: tuple[float, float] | None = None

    def add(self, now: float, figures: dict[str, float]) -> None:
        """A sample; now in seconds of a clock that only goes forward."""
        used = figures.get("cpu_seconds_total")
        if used is None:
            self._before = None
            self.cpu.append(0.0)
            self.memory.append(0)
            return
        share = 0.0
        if self._before is not None and now > self._before[0]:
            share = max(0.0, used - self._before[1]) / (now - self._before[0]) * 100
        self._before = (now, used)
        self.cpu.append(round(share, 1))
        self.memory.append(
            int(figures.get("memory_true_bytes") or figures.get("memory_bytes") or 0)
        )


class Boot(msgspec.Struct):
    """What an inspect says and a list does not; asked again when an instance began anew."""

    state: str
    restarts: int
    begun: float
    boot: str = ""
    reason: str = ""


class Stage:
    """See the module."""

    def __init__(self, upstream: Upstream, hub: Hub) -> None:
        self._upstream = upstream
        self._hub = hub
        self._curves: dict[str, Curve] = {}
        self._boots: dict[str, Boot] = {}
        self.instances: list[dict[str, Any]] = []
        """As they are shown; the newest look's."""
        self.problem: dict[str, str] | None = None
        self.looked = asyncio.Event()
        """Set at every look."""

    async def run(self) -> None:
        """Looks, for as long as somebody wants to know; never ends."""
        while True:
            await self._hub.until_wanted("services", "map", "logs")
            await self.look()
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Once, now."""
        try:
            listed = await self._upstream.call("GET", "/containers/json", {"all": "1"})
            page = await self._upstream.text("GET", "/gemel/metrics")
            await self._take(listed[:MOST], figures(page))
            self.problem = None
        except GemelError as error:
            self.problem = {"brief": error.brief, "resolution": error.resolution}
        self._hub.put("services", self.message())
        self.looked.set()

    def message(self) -> bytes:
        """The state of all, for a page."""
        return msgspec.json.encode(
            {"t": "services", "at": time.time(), "problem": self.problem, "all": self.instances}
        )

    def history(self) -> bytes:
        """The curves so far, for a page that begins to look."""
        curves = {id: [list(one.cpu), list(one.memory)] for id, one in self._curves.items()}
        return msgspec.json.encode({"t": "history", "of": curves})

    async def _take(self, listed: list[dict[str, Any]], found: Figures) -> None:
        now = time.monotonic()
        shown = []
        for one in listed:
            id, name = one["Id"], one["Names"][0].lstrip("/")
            mine = found.get(name, {})
            curve = self._curves.setdefault(id, Curve())
            curve.add(now, mine)
            shown.append(_shown(one, name, mine, curve, await self._boot(one, mine)))
        self.instances = shown
        here = {one["Id"] for one in listed}
        for known in (self._curves, self._boots):
            for id in known.keys() - here:
                del known[id]

    async def _boot(self, one: dict[str, Any], mine: dict[str, float]) -> Boot:
        id, state, restarts = one["Id"], one["State"], int(mine.get("restarts_total", 0))
        begun = time.time() - mine["uptime_seconds"] if "uptime_seconds" in mine else 0.0
        known = self._boots.get(id)
        same = known is not None and (known.state, known.restarts) == (state, restarts)
        if known is not None and same and abs(known.begun - begun) < 1.5:
            return known
        known = self._boots[id] = Boot(state, restarts, begun)
        try:
            whole = await self._upstream.call("GET", path("containers", id, "json"))
        except GemelError:
            del self._boots[id]  # it is being removed, or is to be asked again
            return known
        known.boot, known.reason = str(whole.get("Boot", "")), str(whole.get("BootReason", ""))
        return known


def _shown(
    one: dict[str, Any], name: str, mine: dict[str, float], curve: Curve, boot: Boot
) -> dict[str, Any]:
    labels = one.get("Labels") or {}
    return {
        "id": one["Id"],
        "name": name,
        "service": labels.get(_LABELS + "service", ""),
        "project": labels.get(_LABELS + "project", ""),
        "number": labels.get(_LABELS + "container-number", ""),
        "image": one.get("Image", ""),
        "runtime": one.get("Runtime", ""),
        "state": one.get("State", ""),
        "status": one.get("Status", ""),
        "health": (one.get("Health") or {}).get("Status", "none"),
        "exit": one.get("ExitCode", 0),
        "created": one.get("Created", 0),
        "begun": boot.begun,
        "boot": boot.boot,
        "bootReason": boot.reason,
        "restarts": boot.restarts,
        "ports": [
            [p.get("IP", ""), p.get("PublicPort", 0), p.get("PrivatePort", 0), p.get("Type", "")]
            for p in one.get("Ports") or []
        ],
        "networks": sorted((one.get("NetworkSettings") or {}).get("Networks") or {}),
        "cpu": curve.cpu[-1],
        "memory": curve.memory[-1],
        "limit": int(mine.get("memory_limit_bytes", 0)),
        "processes": int(mine.get("processes", 0)),
    }
