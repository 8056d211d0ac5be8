"""The rounds of a comparison: both ways in turns, so that what else happens hits both alike."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

import msgspec

from gemel.engine.comparing import advise, isolation, load, request, trial
from gemel.engine.containers import Containers
from gemel.engine.core import Core
from gemel.engine.records import Container, now
from gemel.errors import Failed, GemelError, InvalidInput
from gemel.model.comparison import Isolation, Load, Report, Use, Variant, Wanted
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import RuntimeName
from gemel.runtime.microvm import artifacts

CONTAINER, MICROVM = RuntimeName.CONTAINER, RuntimeName.MICROVM
Tell = Callable[[str], None]
_SETTLE = 1.0
"""Seconds between the first answer and the look at its memory."""
_PROBE_WAIT = 60.0


class Experiment:
    """One comparison. ``effective`` is the service's request with its image's defaults."""

    def __init__(
        self,
        core: Core,
        containers: Containers,
        wanted: Wanted,
        effective: CreateRequest,
        report: Report,
        tell: Tell,
    ) -> None:
        self.core = core
        self.containers = containers
        self.wanted = wanted
        self.report = report
        self.tell = tell
        self._made = 0
        self._stem = f"compare-{secrets.token_hex(3)}"
        self._port = wanted.port or first_port(effective)
        self._request = wanted.container
        self._use = {r: Use(runtime=r) for r in (CONTAINER, MICROVM)}
        self._loads = {
            (r, n): Load(runtime=r, connections=n)
            for n in wanted.concurrency
            for r in (CONTAINER, MICROVM)
        }

    def _bare(self, runtime: RuntimeName, snapshot: str = "") -> CreateRequest:
        made = request.bare(self._request, runtime, snapshot=snapshot)
        made.volumes = request.volumes(self._request) or None
        return made

    def _name(self) -> str:
        self._made += 1
        return f"{self._stem}-{self._made}"

    async def run(self) -> Report:
        """All rounds. A variant that fails is told in the report; the others go on."""
        report = self.report
        cold = Variant(name="microvm cold", runtime=MICROVM)
        cloned = Variant(name="microvm cloned", runtime=MICROVM)
        container = Variant(name="container", runtime=CONTAINER)
        report.variants = [container, cold, cloned]
        self.tell("getting ready: a first start of each, not measured")
        for variant in (container, cloned):
            await self._start(variant, "", measured=False)
        if container.failure and cloned.failure:
            raise Failed(
                "it runs neither as a container nor as a micro VM",
                details=f"as a container: {container.failure}\nas a micro VM: {cloned.failure}",
                resolution="--port and --path say where it answers; --start-timeout, how late",
            )
        for round_ in range(1, self.wanted.rounds + 1):
            self.tell(f"round {round_} of {self.wanted.rounds}")
            # the order changes from round to round
            order = [(container, ""), (cold, "off"), (cloned, "")]
            for variant, snapshot in order if round_ % 2 else reversed(order):
                if not variant.failure:
                    await self._start(variant, snapshot, loaded=variant is not cold)
        self._drop_unbooted(cloned)
        for runtime in (CONTAINER, MICROVM):
            self.tell(f"looking around from inside: {runtime.value}")
            report.isolation.append(await self._look(runtime))
        report.load = [one for one in self._loads.values() if one.requests_per_second]
        report.use = [one for one in self._use.values() if one.memory_rest]
        report.notes += request.notes(self._request)
        report.advice = advise.advise(report)
        return report

    def _drop_unbooted(self, cloned: Variant) -> None:
        """Starts that were to be clones and booted cold are no figures of clones."""
        real = [n for n, how in enumerate(cloned.booted) if how == "cloned"]
        if len(real) < len(cloned.start) and not cloned.failure:
            cloned.start = [cloned.start[n] for n in real]
            cloned.booted = [cloned.booted[n] for n in real]
            if not real:
                cloned.failure = "it booted cold each time (`gemel inspect` of it says why)"

    async def _start(
        self, variant: Variant, snapshot: str, *, measured: bool = True, loaded: bool = False
    ) -> None:
        wanted = self.wanted
        try:
            made = self._bare(variant.runtime, snapshot)
            async with trial.running(self.core, self.containers, made, self._name()) as (one, t):
                await trial.answers(self.core, one, self._port, wanted.path, wanted.start_timeout)
                took = time.monotonic() - t
                if not measured:
                    return
                variant.start.append(took)
                variant.booted.append(self._booted(one))
                self.tell(f"  {variant.name}: first healthy answer after {took:.2f} s")
                if loaded:
                    await self._load(one)
        except GemelError as error:
            words = "\n".join(filter(None, (error.brief, error.details)))
            variant.failure = words[:2000]
            self.tell(f"  {variant.name}: {error.brief}")

    def _booted(self, one: Container) -> str:
        ask = getattr(self.core.runtime(one), "boot", None)
        return str(ask(one.id)[0]) if ask else ""

    async def _load(self, one: Container) -> None:
        use = self._use[one.runtime]
        await asyncio.sleep(_SETTLE)
        use.memory_rest.append(float((await trial.usage(self.core, one)).true_memory))
        peak = 0.0
        for connections in self.wanted.concurrency:
            peak = max(peak, await self._put(one, connections))
        use.memory_load.append(peak)
        use.disk.append(float(await trial.layer(self.core, one)))

    async def _put(self, one: Container, connections: int) -> float:
        """One load; gives back the memory that it takes in the middle of it."""
        wanted = self.wanted
        address = self.core.address(one)
        url = f"http://{address}:{self._port}{wanted.path}"
        before = trial.cpu(await trial.usage(self.core, one))
        folder = self.core.paths.instance(one.id)
        putting = asyncio.create_task(
            load.put(url, connections, wanted.seconds, wanted.headers, folder)
        )
        try:
            await asyncio.wait([putting], timeout=wanted.seconds / 2)
            memory = float((await trial.usage(self.core, one)).true_memory)
            figures = await putting
        finally:
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
        spent = trial.cpu(await trial.usage(self.core, one)) - before
        self._keep(self._loads[one.runtime, connections], figures, spent)
        self.tell(
            f"  {one.runtime.value}, {connections} at once: {figures.per_second:,.0f} requests/s, "
            f"p99 {figures.p99 / 1e3:.1f} ms"
        )
        return memory

    def _keep(self, to: Load, figures: load.Figures, spent: int) -> None:
        to.requests_per_second.append(figures.per_second)
        for name in ("p50", "p95", "p99"):
            getattr(to, name).append(getattr(figures, name) / 1e6)
        to.cpu_per_request.append(spent / 1e9 / figures.requests if figures.requests else 0.0)
        to.errors += figures.status + figures.broken
        to.requests += figures.requests

    async def _look(self, runtime: RuntimeName) -> Isolation:
        """Runs the probe as the first program of an instance of the same image."""
        try:
            seen = await self._probe(runtime)
        except GemelError as error:
            return Isolation(runtime=runtime, failure=error.brief)
        return isolation.judge(runtime, seen, isolation.here())

    async def _probe(self, runtime: RuntimeName) -> isolation.Seen:
        made = self._bare(runtime)
        host = made.host_config or HostConfig()
        program = artifacts.find("probe")
        made = msgspec.structs.replace(
            made,
            entrypoint=[isolation.INSIDE],
            cmd=[],
            tty=False,
            host_config=msgspec.structs.replace(
                host, binds=[*(host.binds or []), f"{program}:{isolation.INSIDE}:ro"]
            ),
        )
        async with trial.running(self.core, self.containers, made, self._name()) as (one, _):
            try:
                async with asyncio.timeout(_PROBE_WAIT):
                    await self.core.live[one.id].settled.wait()
            except TimeoutError:
                pass
            return isolation.read(await trial.output(self.core, one))


def first_port(effective: CreateRequest) -> int:
    """The lowest TCP port that it exposes or publishes. Raises InvalidInput."""
    host = effective.host_config or HostConfig()
    named = [*(effective.exposed_ports or {}), *(host.port_bindings or {})]
    ports = sorted(
        int(number)
        for number, _, protocol in (text.partition("/") for text in named)
        if number.isdigit() and protocol in ("", "tcp")
    )
    if ports:
        return ports[0]
    raise InvalidInput(
        "nothing says on which port it answers",
        details="neither the service nor its image exposes a TCP port",
        resolution="name it with --port, or by --url http://:PORT/PATH",
    )


def begin(wanted: Wanted, image_ref: str, image_id: str, size: int, accelerator: str) -> Report:
    """The report before anything is measured."""
    return Report(
        name=wanted.service or image_ref,
        project=wanted.project,
        service=wanted.service,
        image=image_ref,
        image_id=image_id,
        image_size=size,
        when=now(),
        accelerator=accelerator,
        processors=isolation.here().processors,
        url=wanted.path,
        rounds=wanted.rounds,
        seconds=wanted.seconds,
    )
