"""Replacing a running container without losing a request.

start_held   the new one starts beside the old one: it is not found by names and has no
             published ports
admit        once it is ready, ports and names move from the old one to it, in one
             transaction of the firewall and one of the DNS server; connections that are open
             go on to the old one
drain        waits until the old one's connections have ended, so that it can be stopped
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from gemel.engine import health, probes, resolve
from gemel.engine.core import Core
from gemel.engine.lifecycle import Lifecycle
from gemel.engine.ports import hand_over
from gemel.engine.records import Container
from gemel.errors import Conflict
from gemel.host import netstat

#: Seconds in which whoever has just been told an old address has made his connection.
SETTLE = 1.0
#: The same for an instance whose open connections cannot be seen.
SETTLE_UNSEEN = 3.0
#: Seconds for which ports that are exposed but not published are waited for.
EXPOSED_WAIT = 10.0
_PAUSE = 0.05


class Handover:
    """See the module."""

    def __init__(self, core: Core, lifecycle: Lifecycle) -> None:
        self.core = core
        self.lifecycle = lifecycle

    async def start_held(self, one: Container) -> None:
        """Starts it without names and ports of its own. Raises NotModified if it runs."""
        await self.lifecycle.start(one, held=True)

    async def admit(self, one: Container, old: Container | None, seconds: float) -> None:
        """Waits until it is ready, and lets it take over from ``old``.

        Raises Conflict if it is not ready within ``seconds``, Conflict if a port that only it
        publishes is taken; nothing has moved then.
        """
        core = self.core
        await self._ready(one, old, seconds)
        async with core.locked(one):
            if not one.state.running:
                raise Conflict(f"container {one.name} has ended: {one.state.exit_code}")
            if one.state.held:
                await hand_over(core, one, old)
            one.state.held = False
            if old is not None and old.state.running:
                old.state.held = True
                await core.save(old)
            await asyncio.gather(core.sync_names(), core.sync_ports())
            await core.save(one)
        core.emit(one, "admit")

    async def drain(self, one: Container, seconds: float) -> None:
        """Takes it out of names and ports; returns when its connections have ended.

        At most ``seconds``. A start later on makes it found again.
        """
        core = self.core
        async with core.locked(one):
            if not one.state.running:
                return
            one.state.held = True
            await asyncio.gather(core.sync_names(), core.sync_ports())
            await core.save(one)
        core.emit(one, "drain")
        deadline = time.monotonic() + seconds
        visible = core.runtime(one).capabilities.shares_kernel and one.state.pid
        await self._pause(one, min(seconds, SETTLE if visible else SETTLE_UNSEEN))
        while visible and time.monotonic() < deadline and one.state.running:
            ports, open_ports = await asyncio.to_thread(netstat.tcp, one.state.pid)
            if not ports & open_ports:
                return
            await self._pause(one, _PAUSE)

    async def _pause(self, one: Container, seconds: float) -> None:
        """Sleeps, or comes back early if the container ends."""
        try:
            async with asyncio.timeout(seconds):
                await self.core.live[one.id].ended.wait()
        except TimeoutError:
            pass

    async def _ready(self, one: Container, old: Container | None, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        if health.wanted(one):
            while one.state.health != "healthy":
                self._alive(one)
                if one.state.health == "unhealthy":
                    raise Conflict(f"container {one.name} is unhealthy", details=_last(one))
                if time.monotonic() > deadline:
                    raise Conflict(
                        f"container {one.name} is not healthy after {seconds:g} s",
                        details=_last(one),
                    )
                await asyncio.sleep(_PAUSE)
            return
        must = {p for _, _, p, protocol in resolve.wanted_ports(one.request) if protocol == "tcp"}
        await self._listening(one, must, deadline, must=True)
        may = _exposed(one)
        if old is not None and old.state.pid and self.core.runtime(old).capabilities.shares_kernel:
            may |= (await asyncio.to_thread(netstat.tcp, old.state.pid))[0]
        soon = min(deadline, time.monotonic() + EXPOSED_WAIT)
        await self._listening(one, may - must, soon, must=False)
        self._alive(one)

    async def _listening(
        self, one: Container, ports: set[int], deadline: float, *, must: bool
    ) -> None:
        """Waits until all ports accept connections. Raises Conflict if they must and do not."""
        address = self.core.address(one)
        left = set(ports) if address else set()
        while left:
            self._alive(one)
            for port in sorted(left):
                if await _accepts(address, port):
                    left.discard(port)
            if left and time.monotonic() > deadline:
                if not must:
                    return
                raise Conflict(
                    f"container {one.name} does not accept connections",
                    details=f"nothing listens on port {', '.join(map(str, sorted(left)))}",
                    resolution="give the service a health check, so that it is known when"
                    " it is ready",
                )
            if left:
                await asyncio.sleep(_PAUSE)

    def _alive(self, one: Container) -> None:
        if one.id not in self.core.containers or not one.state.running:
            raise Conflict(
                f"container {one.name} exited ({one.state.exit_code})", details=one.state.error
            )


async def _accepts(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            return (await probes.run(["TCP", str(port)], address))[0] == 0
    except TimeoutError:
        return False


def _exposed(one: Container) -> set[int]:
    found = [resolve.port(text) for text in one.request.exposed_ports or {}]
    return {number for number, protocol in found if protocol == "tcp"}


def _last(one: Container) -> str:
    """What the last health check said."""
    log: Sequence[dict[str, object]] = one.state.health_log
    return str(log[-1].get("Output", "")) if log else "no health check has run yet"
