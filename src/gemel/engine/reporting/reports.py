"""Crash reports (facade.Reports): collected at an end that nobody asked for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import msgspec

from gemel.engine import why
from gemel.engine.core import Core, log
from gemel.engine.facade import Json, Jsons
from gemel.engine.records import Container
from gemel.engine.reporting import good
from gemel.engine.reporting.curves import Curves
from gemel.engine.reporting.good import Good
from gemel.engine.reporting.shelf import Shelf
from gemel.errors import GemelError
from gemel.model.docker import HostConfig
from gemel.model.instance import Exit
from gemel.observe import logs
from gemel.observe.capture.records import Query
from gemel.observe.traffic import Traffic

#: Lines of the log, bytes of the guest's console, exchanges each way, seconds of traffic.
LINES, CONSOLE, CALLS, TRAFFIC = 500, 64 << 10, 200, 30.0
#: After a report of an instance, further failures are only counted for so many seconds.
PAUSE = 10.0
#: Seconds that an instance runs (healthy, if it can tell) until it counts as working.
WORKS = 20.0
#: Instances whose last good state is kept.
GOOD_MOST = 500
#: Seconds that collecting may hold the end of an instance up.
PATIENCE = 3.0
CORE_LABEL = "gemel.core"


class Reports:
    """Is told of starts, ends and sicknesses by the engine (core.Witness)."""

    def __init__(self, core: Core, traffic: Traffic) -> None:
        self._core = core
        self._traffic = traffic
        self._shelf = Shelf(core.paths.root / "reports")
        self._good: dict[str, Good] = {}
        self._last: dict[str, tuple[float, int]] = {}
        self._peaks: dict[str, int] = {}
        """Bytes of memory that the last run of those that failed took at most."""
        self.curves = Curves(core)

    async def prepare(self) -> None:
        """When the engine starts."""
        for known in await self._core.store.all("good", Good):
            self._good[known.key] = known
        self._core.witness = self
        self.curves.start()

    async def close(self) -> None:
        """When it ends."""
        self._core.witness = None
        await self.curves.close()

    # --- what the engine tells -------------------------------------------------------

    def started(self, one: Container) -> None:
        """Looks whether it works, in a while."""
        self._core.spawn(one, self._see_it_work(one), "seeing it work")

    async def ended(self, one: Container, exit: Exit, asked: bool) -> None:
        """Collects a report unless that end was asked for or good. Never raises, is quick.

        What takes longer than PATIENCE comes into being while the instance is released.
        """
        if asked or (exit.status == 0 and not exit.oom and not exit.error):
            return
        kind = "oom" if exit.oom else "panic" if exit.error else "exit"
        collected = asyncio.Event()

        async def collect() -> None:
            try:
                await self._report(one, kind)
            finally:
                collected.set()

        self._core.spawn(one, collect(), "a report")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await collected.wait()

    def sick(self, one: Container) -> None:
        """It has become unhealthy."""
        self._core.spawn(one, self._report(one, "unhealthy"), "a report")

    async def _see_it_work(self, one: Container) -> None:
        live = self._core.live[one.id]
        while not live.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WORKS):
                    await live.ended.wait()
                    return
            if one.state.status == "running" and one.state.health in ("", "healthy"):
                await self._note_good(one)
                return

    async def _note_good(self, one: Container) -> None:
        facts = good.facts(one, time.time())
        self._good[facts.key] = facts
        await self._core.store.put("good", facts.key, facts)
        if len(self._good) > GOOD_MOST:
            oldest = min(self._good.values(), key=lambda known: known.at)
            del self._good[oldest.key]
            await self._core.store.delete("good", [oldest.key])

    # --- collecting ------------------------------------------------------------------

    async def _report(self, one: Container, kind: str) -> None:
        last, more = self._last.get(one.id, (-PAUSE, 0))
        if time.monotonic() - last < PAUSE:
            self._last[one.id] = (last, more + 1)
            return
        self._last[one.id] = (time.monotonic(), 0)
        # first what is gone once the instance is released, and how it is now
        await self._note_peak(one)
        console = await asyncio.to_thread(_console, self._core, one)
        for known in (self._last, self._peaks):
            if len(known) > 1000:
                known.pop(next(iter(known)))
        try:
            id = f"{int(time.time() * 1000):013d}-{one.id[:12]}"
            facts = self._facts(one, kind, id, more)
            parts = {
                "log.txt": await self._log(one),
                "traffic.jsonl": await self._calls(one),
                "console.txt": console,
            }
            kept = {name: data for name, data in parts.items() if data}
            await asyncio.to_thread(self._shelf.put, id, facts, kept)
            self._core.emit(one, "report", report=id)
        except Exception:
            log.exception("a report of %s", one.name)

    async def _note_peak(self, one: Container) -> None:
        """What is still there of the run's figures. A guest that is gone tells nothing."""
        self._peaks.pop(one.id, None)
        with contextlib.suppress(GemelError, OSError, TimeoutError):
            async with asyncio.timeout(2):
                self._peaks[one.id] = (await self._core.runtime(one).usage(one.id)).memory_peak

    def _facts(self, one: Container, kind: str, id: str, more: int) -> Json:
        labels = one.request.labels or {}
        return {
            "Id": id,
            "Time": time.time(),
            "Kind": kind,
            "Instance": one.id,
            "Name": one.name,
            "Project": labels.get("com.docker.compose.project", ""),
            "Service": labels.get("com.docker.compose.service", ""),
            "Runtime": one.runtime.value,
            "Image": {"Id": one.image_id, "Name": one.image_ref},
            "Command": [good.text(word) for word in one.argv],
            "Headline": why.headline(one, time.time()),
            "Reasons": why.reasons(one),
            "ExitCode": one.state.exit_code,
            "OOMKilled": one.state.oom,
            "NotReported": more,
            "Environment": good.masked(one),
            "Changed": self.changes(one),
            "Events": why.changed(self._core, one),
            "Health": [
                {**entry, "Output": good.text(str(entry.get("Output", "")))}
                for entry in one.state.health_log
            ],
            "Memory": self.memory(one),
            "Curve": {
                "Columns": ["time", "cpu_seconds", "memory", "memory_limit", "pids"],
                "Rows": [msgspec.structs.astuple(s) for s in self.curves.of(one.id)],
            },
            "Core": core_words(one),
        }

    async def _log(self, one: Container) -> bytes:
        out = bytearray()
        with contextlib.suppress(OSError):
            async for line in logs.read(self._core.paths.instance(one.id) / "log", tail=LINES):
                text = good.text(line.data[:8192].decode("utf-8", "replace")).rstrip("\n")
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.time_ns / 1e9))
                out += f"{stamp}Z {('stdout', 'stderr')[line.stream - 1]} {text}\n".encode()
        return bytes(out)

    async def _calls(self, one: Container) -> bytes:
        if not self._traffic.on:
            return b""
        out = b""
        since = time.time() - TRAFFIC
        for query in (Query(target=one.id, tail=CALLS), Query(source=one.id, tail=CALLS)):
            async for line in self._traffic.lines(query):
                with contextlib.suppress(msgspec.MsgspecError, TypeError):
                    if float(msgspec.json.decode(line).get("start") or 0) >= since:
                        out += line
        return out

    # --- for those who ask -------------------------------------------------------------

    def changes(self, one: Container) -> list[str] | None:
        """What is otherwise since it last worked; None if it was never seen to work."""
        known = self._good.get(good.key_of(one))
        return None if known is None else good.differences(known, good.facts(one, 0.0))

    def memory(self, one: Container) -> str:
        """What it used at the last look, in words; empty if nobody looked."""
        seen = self.curves.of(one.id)
        limit = (one.request.host_config or HostConfig()).memory or 0
        of = f" of {limit >> 20} MiB" if limit else ""
        if not one.state.running and (peak := self._peaks.get(one.id, 0)):
            return f"at most {peak / 2**20:.1f} MiB{of} in the run that failed"
        if not seen:
            return ""
        last, most = seen[-1], max(sample.memory for sample in seen)
        ago = why.span(time.time() - last.time)
        text = f"{last.memory / 2**20:.1f} MiB{of} {ago} ago"
        return text + (f", at most {most / 2**20:.1f} MiB before" if most > last.memory else "")

    async def latest(self, one: Container) -> Json | None:
        """The newest report of an instance, or of the one that it took the place of."""
        for facts in await asyncio.to_thread(self._shelf.all):
            if facts["Name"] == one.name:
                return facts
        return None

    async def list(self) -> Jsons:
        """All, the newest first."""
        return await asyncio.to_thread(self._shelf.all)

    async def show(self, id: str) -> Json:
        """One whole. Raises NotFound."""
        return await asyncio.to_thread(self._shelf.facts, id)

    async def archive(self, id: str) -> AsyncIterator[bytes]:
        """One as a zip. Raises NotFound before the first piece."""
        file = await asyncio.to_thread(self._shelf.packed, id)
        return _pieces(file)

    async def why(self, ref: str) -> Json:
        """GET /gemel/containers/ID/why. Raises NotFound."""
        one = self._core.container(ref)
        report = None
        with contextlib.suppress(GemelError, OSError):
            report = await self.latest(one)
        return {
            **await why.explain(self._core, self._traffic, one),
            "SinceGood": self.changes(one),
            "Memory": self.memory(one),
            "Report": report["Id"] if report else "",
        }


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while data := await asyncio.to_thread(file.read, 1 << 18):
            yield data
    finally:
        file.close()


def _console(core: Core, one: Container) -> bytes:
    """What a guest and its relay said of themselves; of a container nothing."""
    out = b""
    folder = core.paths.instance_run(one.id)
    with contextlib.suppress(OSError), (folder / "guest.log").open("rb") as file:
        file.seek(max(0, (folder / "guest.log").stat().st_size - CONSOLE))
        out = file.read(CONSOLE)
    return out


def core_words(one: Container) -> str:
    """Where a core dump is to be looked for, if one was asked for."""
    if (one.request.labels or {}).get(CORE_LABEL) != "true":
        return ""
    if one.runtime.value == "microvm":
        return (
            "if it was ended by a signal that dumps, its guest wrote /core.NAME.PID into its root "
            f"(as its user, who must be allowed to): gemel cp {one.name}:/core.NAME.PID ."
        )
    try:
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    except OSError:
        pattern = "?"
    return (
        "where a container's core dump goes is one setting for the whole machine, which gemel "
        f"leaves alone: kernel.core_pattern is now `{pattern}`; a file name without a pipe, such "
        "as /tmp/core.%e.%p, is a path in the container's own root (or use runtime: microvm)"
    )
