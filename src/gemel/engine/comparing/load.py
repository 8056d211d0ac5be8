"""Load on one address by wrk, a load generator in C that costs little itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gemel.errors import Failed, InvalidInput, Unavailable
from gemel.host.run import find, run

#: What wrk calls at the end (its scripting interface: done); times are in microseconds.
_SCRIPT = """\
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('GEMEL {"requests":%d,"duration":%d,"p50":%d,"p95":%d,"p99":%d,'
    .. '"status":%d,"broken":%d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class Figures(msgspec.Struct, frozen=True):
    """Of one run: requests, times in microseconds, answers other than 2xx and 3xx, failures."""

    requests: int
    duration: int
    p50: int
    p95: int
    p99: int
    status: int
    broken: int

    @property
    def per_second(self) -> float:
        """Successful requests in a second."""
        good = max(self.requests - self.status, 0)
        return good / (self.duration / 1e6) if self.duration else 0.0


def program() -> str:
    """Path of wrk. Raises Unavailable."""
    if path := find("wrk"):
        return path
    raise Unavailable(
        "the load generator wrk is not installed",
        resolution="apt-get install wrk",
    )


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises InvalidInput for a header that would break out of its line."""
    for key, value in headers.items():
        if not key or not key.isprintable() or ":" in key or not value.isprintable():
            raise InvalidInput(f"{key[:40]!r} is no HTTP header")


async def put(
    url: str, connections: int, seconds: float, headers: Mapping[str, str], folder: Path
) -> Figures:
    """Runs the load. folder: where the script may lie for as long. Raises Failed, Unavailable."""
    argv = [program(), "-t", "1", "-c", str(connections), "-d", f"{max(round(seconds), 1)}s"]
    for key, value in headers.items():
        argv += ["-H", f"{key}: {value}"]
    script = folder / f"wrk-{connections}.lua"
    await asyncio.to_thread(script.write_text, _SCRIPT)
    result = await run([*argv, "-s", str(script), url], timeout=seconds + 30)
    return parse(result.stdout.decode("utf-8", "replace"))


def parse(output: str) -> Figures:
    """The figures in wrk's output. Raises Failed."""
    for line in output.splitlines():
        if line.startswith("GEMEL "):
            try:
                return msgspec.json.decode(line.removeprefix("GEMEL "), type=Figures)
            except msgspec.DecodeError as error:
                raise Failed("wrk's figures are not understood", details=str(error)) from error
    raise Failed("wrk told no figures", details=output[-2000:])
