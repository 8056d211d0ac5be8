"""Traces, as the engine offers them (facade.Tracing), and what services are told of OTLP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import msgspec

from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.engine.faultmarks import Touched
from gemel.engine.observing import Observing
from gemel.engine.otlp import GRPC, HTTP
from gemel.errors import GemelError, InvalidInput, NotFound
from gemel.observe.capture.records import Peer
from gemel.observe.tracing.owner import Traces
from gemel.observe.tracing.records import Ask, Point

log = logging.getLogger("gemel.engine")


class Tracing:
    """Owns the process that joins traces; it is started by the first who sends or asks."""

    def __init__(self, core: Core, observing: Observing) -> None:
        self.core = core
        self._observing = observing
        observing.points = self.points
        self.traces = Traces(core.paths.run, lambda: observing.snapshot().peers)
        core.observers.append(self.traces.notice)

    def prepare(self) -> None:
        """Listens for OTLP; before networks are brought up. Without it there is none."""
        try:
            port = self.traces.listen()
        except OSError as error:
            log.warning("OTLP is not taken: %s", error)
            return
        self.core.net.lead({GRPC: port, HTTP: port})
        self.core.otlp = True

    async def lines(self, ask: Ask) -> AsyncIterator[bytes]:
        """JSON lines that answer. Raises Failed."""
        await self._observing.start()
        await self.traces.start()
        async for line in self.traces.lines(ask, self._observing.traffic.feed()):
            yield line

    async def show(self, ask: Ask) -> Json:
        """One trace whole. Raises NotFound, InvalidInput."""
        if ask.id != "newest" and not (4 <= len(ask.id) <= 32 and _is_hex(ask.id)):
            raise InvalidInput(f"`{ask.id[:40]}` is no id of a trace")
        async for line in self.lines(ask):
            found: Json = msgspec.json.decode(line)
            for span in found.get("Spans", []):
                if marks := self._marks(span):
                    span["Faults"] = marks
            return found
        raise NotFound(
            "no trace is recorded" if ask.id == "newest" else f"no trace {ask.id} is recorded",
            details="only those of late are kept, while the recording goes on",
            resolution="ask again after some calls"
            if ask.id == "newest"
            else "`gemel traces` lists them",
        )

    def _marks(self, span: Json) -> list[Json]:
        """The faults that an observed call met; of what services tell, nobody knows the edge."""
        if span["Source"] != "observed":
            return []
        attributes = span["Attributes"]
        call = Touched(
            source=_end(span["Peer"]),
            target=_end(span["Service"]),
            start=span["Start"],
            duration=span["Duration"],
            fault=str(attributes.get("gemel.fault", "")),
            carried=str(attributes.get("gemel.carried", "")),
        )
        shown: list[Json] = msgspec.to_builtins(self._observing.marks.of(call))
        return shown

    async def points(self) -> list[Point]:
        """The latest of the metrics that services sent; none while nothing was sent."""
        if not self.traces.on:
            return []
        try:
            return [
                msgspec.json.decode(line, type=Point)
                async for line in self.traces.lines(Ask(points=True), None)
            ]
        except (GemelError, msgspec.MsgspecError) as error:
            log.warning("metrics of services: %s", error)
            return []

    async def close(self) -> None:
        """Ends the process with the engine. Never raises."""
        try:
            await self.traces.close()
        except Exception:
            log.exception("ending the process that joins traces")


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdef" for c in text)


def _end(name: str) -> Peer:
    """An end of which a trace tells the name alone."""
    return Peer(name=name, service=name)
