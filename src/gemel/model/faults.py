"""Faults between services, as they are asked for."""

from __future__ import annotations

import msgspec


class FaultRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """A fault as a client asks for it. source and target: services or instances."""

    source: str = msgspec.field(name="From", default="")
    target: str = msgspec.field(name="To", default="")
    project: str = ""
    down: bool = False
    loss: float = 0.0
    """Share of the packets, 0 to 1."""
    rate: int = 0
    """Bits per second."""
    latency: float = 0.0
    jitter: float = 0.0
    seconds: float = msgspec.field(name="For", default=0.0)
    """0: until it is cleared or the engine stops."""
