"""What the engine keeps of each thing in its state. Written as JSON; times are RFC 3339."""

from __future__ import annotations

import datetime
import functools
import time
from typing import Any

import msgspec

from gemel.model.choice import Choice
from gemel.model.docker import CreateRequest, EndpointSettings
from gemel.model.instance import RuntimeName

#: Docker's way to say "never".
NEVER = "0001-01-01T00:00:00Z"


def now() -> str:
    """The time as Docker writes it: RFC 3339 with nanoseconds, UTC."""
    return stamp(time.time_ns())


def stamp(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339."""
    seconds, rest = divmod(ns, 1_000_000_000)
    base = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{base:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


@functools.lru_cache(maxsize=4096)
def parse_stamp(text: str) -> float:
    """Seconds since the epoch of a time written by ``stamp``; 0 for NEVER and nonsense."""
    if text.startswith("0001"):
        return 0.0
    try:
        head, _, rest = text.rstrip("Z").partition(".")
        base = datetime.datetime.fromisoformat(head + "+00:00").timestamp()
        return base + (float("0." + rest) if rest else 0.0)
    except ValueError:
        return 0.0


class MountPoint(msgspec.Struct, kw_only=True):
    """A resolved mount of a container. kind: bind, volume, tmpfs or image."""

    kind: str
    target: str
    source: str = ""
    """Host path (bind, volume, image)."""
    name: str = ""
    """Name of the volume; the image's id."""
    readonly: bool = False
    propagation: str = ""
    anonymous: bool = False
    nocopy: bool = False
    size: int | None = None
    mode: int | None = None
    options: list[str] = []
    create_source: bool = False
    subpath: str = ""


class EndpointRecord(msgspec.Struct, kw_only=True):
    """A container's place on a network; the address is kept while the container exists."""

    network_id: str
    network_name: str
    settings: EndpointSettings
    endpoint_id: str
    address: str = ""
    mac: str = ""
    index: int = 0
    """n of ethN."""


class Binding(msgspec.Struct, kw_only=True):
    """A published port once its host port is chosen."""

    host_ip: str
    host_port: int
    protocol: str
    port: int


class State(msgspec.Struct, kw_only=True):
    """status: created, running, paused, restarting, removing, exited, dead."""

    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER
    stopped_by_user: bool = False
    restarts: int = 0
    health: str = ""
    """"" without a check, else starting, healthy, unhealthy."""
    failing_streak: int = 0
    held: bool = False
    """Kept out of shared names and published ports: not admitted yet, or on its way out."""
    health_log: list[dict[str, Any]] = []

    @property
    def running(self) -> bool:
        return self.status in ("running", "paused")


class Container(msgspec.Struct, kw_only=True):
    """A container (instance) as asked for and as it is.

    request: the effective configuration, image defaults merged in.
    """

    id: str
    name: str
    created: str
    request: CreateRequest
    image_id: str
    image_ref: str
    runtime: RuntimeName
    choice: Choice | None = None
    """Why it has that runtime, where the request said auto."""
    argv: list[str]
    mounts: list[MountPoint] = []
    endpoints: list[EndpointRecord] = []
    bindings: list[Binding] = []
    state: State = msgspec.field(default_factory=State)
    warnings: list[str] = []


class Volume(msgspec.Struct, kw_only=True):
    """A named volume; its content lies in ``volumes/NAME/_data``, or where driver_opts say."""

    name: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    filled: bool = False
    """Whether an image's content was copied into it (at its first use)."""
    path: str = ""
    """Host folder."""

    @property
    def block(self) -> bool:
        """Whether it is a disk of its own, beside ``path``, once a micro VM has used it."""
        return self.options.get("type") == "block"
