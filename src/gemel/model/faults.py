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
    """Seconds by which an answer comes later (TCP)."""
    jitter: float = 0.0
    """Seconds by which that differs, evenly more or less."""
    status: int = 0
    """HTTP status that requests are answered with."""
    body_delay: float = 0.0
    """Seconds between the head and the body of an HTTP answer."""
    share: float = 1.0
    """Of the requests that status and body_delay concern, 0 to 1."""
    port: int = 0
    """Of the target, for delays and HTTP; 0 for all."""
    seconds: float = msgspec.field(name="For", default=0.0)
    """0: until it is cleared or the engine stops."""

    @property
    def proxied(self) -> bool:
        """Whether it needs more than a rule of the kernel."""
        return bool(self.latency or self.jitter or self.http)

    @property
    def http(self) -> bool:
        """Whether it is about HTTP."""
        return bool(self.status or self.body_delay)


def describe(wanted: FaultRequest) -> str:
    """What a fault does, in a few words."""
    if wanted.down:
        return "down"
    parts = [f"loss {wanted.loss * 100:g}%"] if wanted.loss else []
    parts += [f"rate {wanted.rate / 1000:g}kbit"] if wanted.rate else []
    if wanted.latency or wanted.jitter:
        jitter = f" ± {wanted.jitter * 1000:g}ms" if wanted.jitter else ""
        parts.append(f"latency {wanted.latency * 1000:g}ms{jitter}")
    of = f" of {wanted.share * 100:g}% of requests" if wanted.share < 1 else ""
    parts += [f"HTTP {wanted.status}{of}"] if wanted.status else []
    parts += [f"body {wanted.body_delay:g}s late{of}"] if wanted.body_delay else []
    return ", ".join(parts) + (f", port {wanted.port}" if wanted.port else "")
