"""Host ports of containers: chosen before a start, held while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from gemel.engine import resolve
from gemel.engine.core import Core, log
from gemel.engine.records import Binding, Container
from gemel.errors import Conflict, GemelError, InvalidInput
from gemel.model.network import PublishedPort


def _published(one: Container, bound: Binding) -> PublishedPort:
    return PublishedPort(
        host_ip=bound.host_ip,
        host_port=bound.host_port,
        protocol=bound.protocol,
        address="",
        port=bound.port,
        instance_id=one.id,
    )


class Held:
    """The ports that are held by sockets of the engine."""

    async def take(self, core: Core, one: Container) -> None:
        """Holds again what a running container has (after a restart of the engine)."""
        for bound in one.bindings:
            try:
                await core.net.reserve(_published(one, bound))
            except GemelError as error:
                log.warning("port of %s: %s", one.name, error)

    async def release(self, core: Core, one: Container) -> None:
        """Lets go of all ports of a container."""
        for bound in one.bindings:
            await core.net.release(_published(one, bound))


held = Held()


async def choose_ports(core: Core, one: Container, undo: contextlib.AsyncExitStack) -> None:
    """Chooses and holds the host ports that the container's request names.

    Raises Conflict with whoever has the port; InvalidInput.
    """
    one.bindings = []
    if not any(end.address for end in one.endpoints):
        return
    undo.push_async_callback(held.release, core, one)
    for host_ip, host_port, port, protocol in resolve.wanted_ports(one.request):
        bound = await _hold(core, one, host_ip or "0.0.0.0", host_port, port, protocol)
        one.bindings = [*one.bindings, bound]


async def _hold(
    core: Core, one: Container, host_ip: str, host_port: str, port: int, protocol: str
) -> Binding:
    if ":" in host_ip:
        if host_ip != "::":
            raise InvalidInput(
                f"cannot publish on {host_ip}: gemel publishes on IPv4 addresses",
                resolution="use 127.0.0.1 or 0.0.0.0",
            )
        host_ip = "0.0.0.0"
    last: Conflict | None = None
    for wanted, shared in _tries(*_range(host_port)):
        number = wanted or await core.net.choose_port(host_ip, protocol)
        bound = Binding(host_ip=host_ip, host_port=number, protocol=protocol, port=port)
        try:
            await core.net.reserve(_published(one, bound), shared=shared)
        except Conflict as error:
            last = error
            continue
        return bound
    raise last or Conflict(f"no free port for {port}/{protocol}")


def _tries(low: int, high: int) -> Iterator[tuple[int, bool]]:
    """Ports to try (0: any), and whether another replica may have it, too.

    Of a range each replica has a port of its own, as long as there are any.
    """
    numbers = [low] * 64 if low == 0 else range(low, min(high, low + 63) + 1)
    for number in numbers:
        yield number, low == high != 0
    if high > low:
        for number in numbers:
            yield number, True


async def hand_over(core: Core, one: Container, old: Container | None) -> None:
    """Gives a running container the ports it asks for, those of ``old`` where they fit.

    A port that the kernel chose for ``old`` stays the same. Nothing is changed in the
    firewall. Raises Conflict, InvalidInput; all is as before then.
    """
    if not any(end.address for end in one.endpoints):
        return
    left = list(old.bindings) if old is not None else []
    moved: list[Binding] = []
    fresh: list[Binding] = []
    try:
        for host_ip, host_port, port, protocol in resolve.wanted_ports(one.request):
            low, high = _range(host_port)
            for bound in left:
                same = bound.protocol == protocol and bound.host_ip == (host_ip or "0.0.0.0")
                fits = bound.port == port if low == 0 else low <= bound.host_port <= high
                if same and fits:
                    left.remove(bound)
                    moved.append(msgspec.structs.replace(bound, port=port))
                    break
            else:
                fresh.append(
                    await _hold(core, one, host_ip or "0.0.0.0", host_port, port, protocol)
                )
    except BaseException:
        for bound in fresh:
            await core.net.release(_published(one, bound))
        raise
    for bound in moved:
        await core.net.hand_over(_published(one, bound), old.id if old else "")
    if old is not None:
        for bound in left:
            await core.net.release(_published(old, bound))
        old.bindings = []
    one.bindings = [*moved, *fresh]


def _range(text: str) -> tuple[int, int]:
    if text in ("", "0"):
        return 0, 0
    low, _, high = text.partition("-")
    if not low.isdigit() or not (high or low).isdigit() or not 0 < int(low) < 65536:
        raise InvalidInput(f"invalid host port: {text!r}")
    return int(low), min(65535, int(high or low))
