"""A comparison of a service as a container and as a micro VM: what is asked, what was measured.

Every measured value is a list, one entry a round, so that its spread can be shown. Times in
seconds, sizes in bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from gemel.model.docker import CreateRequest
from gemel.model.instance import RuntimeName

MAX_ROUNDS, MAX_SECONDS, MAX_CONNECTIONS = 20, 60.0, 512


class Wanted(msgspec.Struct, kw_only=True, rename="pascal"):
    """What to compare. port: of the service, 0 for the first that it exposes or answers on."""

    container: CreateRequest
    service: str = ""
    project: str = ""
    path: str = "/"
    port: int = 0
    rounds: int = 3
    seconds: float = 3.0
    concurrency: list[int] = msgspec.field(default_factory=lambda: [1, 16])
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    start_timeout: float = 60.0
    """Seconds until the first healthy answer, after which a variant counts as failed."""


class Variant(msgspec.Struct, kw_only=True, rename="pascal"):
    """One way to run it: ``container``, ``microvm cold``, ``microvm cloned``, ``microvm warm``."""

    name: str
    runtime: RuntimeName
    start: list[float] = []
    """From the request to create it to the first healthy answer."""
    booted: list[str] = []
    """How each start came up, as the runtime tells: cloned, cold, or nothing."""
    failure: str = ""


class Load(msgspec.Struct, kw_only=True, rename="pascal"):
    """A runtime under load at one number of connections. Latencies at percentiles."""

    runtime: RuntimeName
    connections: int
    requests_per_second: list[float] = []
    p50: list[float] = []
    p95: list[float] = []
    p99: list[float] = []
    cpu_per_request: list[float] = []
    """CPU seconds of the host for one request, VMM and helpers included."""
    errors: int = 0
    """Answers that were no success, broken and timed-out connections, in all rounds."""
    requests: int = 0


class Use(msgspec.Struct, kw_only=True, rename="pascal"):
    """What a runtime takes: proportional memory at rest and under load, writable layer."""

    runtime: RuntimeName
    memory_rest: list[float] = []
    memory_load: list[float] = []
    disk: list[float] = []


class Isolation(msgspec.Struct, kw_only=True, rename="pascal"):
    """What a program sees from inside. reaches: system calls that get to the kernel it sees."""

    runtime: RuntimeName
    kernel: str = ""
    shares_kernel: bool = True
    capabilities: list[str] = []
    seccomp: bool = False
    reaches: list[str] = []
    tried: int = 0
    host_facts: list[str] = []
    """What it sees of the host: its kernel, memory, processors, disks, load …"""
    failure: str = ""


class Advice(msgspec.Struct, kw_only=True, rename="pascal"):
    """The recommendation. summary: one sentence with its figures."""

    runtime: RuntimeName
    summary: str
    reasons: list[str] = []


class Report(msgspec.Struct, kw_only=True, rename="pascal"):
    """All of a comparison."""

    name: str
    project: str = ""
    service: str = ""
    image: str
    image_id: str
    image_size: int = 0
    when: str
    accelerator: str
    processors: int
    url: str
    rounds: int
    seconds: float
    variants: list[Variant] = []
    load: list[Load] = []
    use: list[Use] = []
    isolation: list[Isolation] = []
    advice: Advice | None = None
    notes: list[str] = []


def median(values: Sequence[float]) -> float:
    """The middle value; 0 without any."""
    return statistics.median(values) if values else 0.0
