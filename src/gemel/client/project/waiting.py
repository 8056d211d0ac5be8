"""Waiting until containers are as depends_on and ``--wait`` want them."""

from __future__ import annotations

import time
from typing import Any

from gemel.client.engine import Client
from gemel.errors import Failed, GemelError

#: Seconds after which a condition that never comes is given up.
LONGEST = 3600.0
_FIRST, _SLOWEST = 0.02, 0.25


class NotReady(Failed):
    """It will not become as wanted. container: which one, for the log's last lines."""

    def __init__(self, brief: str, details: str = "", resolution: str = "") -> None:
        super().__init__(brief, details, resolution)


def wait_for(
    client: Client, id: str, name: str, condition: str, timeout: float | None = None
) -> str:
    """Waits for a condition; the state it is in then (Healthy, Started, Exited).

    condition: service_started, service_healthy, service_completed_successfully, or
    ``running_or_healthy`` (of ``--wait``). Raises NotReady.
    """
    deadline = time.monotonic() + (LONGEST if timeout is None else timeout)
    pause = _FIRST
    while True:
        info = client.get(f"/containers/{id}/json")
        verdict = judge(info, name, condition)
        if verdict:
            return verdict
        if time.monotonic() > deadline:
            raise NotReady(
                f"timeout waiting for container {name} ({condition.removeprefix('service_')})",
                details=health_output(info),
                resolution=f"gemel logs {name} shows what it does",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, _SLOWEST)


def judge(info: dict[str, Any], name: str, condition: str) -> str:
    """The state in words if the condition is met, "" if it may still be. Raises NotReady."""
    state = info.get("State") or {}
    status = state.get("Status", "")
    health = (state.get("Health") or {}).get("Status", "none") or "none"
    ended = status in ("exited", "dead")
    code = int(state.get("ExitCode") or 0)
    if condition == "service_completed_successfully":
        if not ended:
            return ""
        if code:
            raise NotReady(
                f"container {name} didn't complete successfully: exit {code}",
                details=str(state.get("Error") or ""),
            )
        return "Exited"
    if ended and not (condition == "running_or_healthy" and code == 0):
        raise NotReady(f"container {name} exited ({code})", details=str(state.get("Error") or ""))
    if ended:
        return "Exited"
    if condition == "service_started" or (condition == "running_or_healthy" and health == "none"):
        return "Started" if status == "running" else ""
    if health == "none" and status == "running":
        raise NotReady(
            f"container {name} has no healthcheck configured",
            resolution="give the service a `healthcheck:`, or wait for service_started",
        )
    if health == "unhealthy":
        raise NotReady(
            f"container {name} is unhealthy",
            details=health_output(info),
            resolution=f"gemel logs {name} shows what it does",
        )
    return "Healthy" if health == "healthy" and status == "running" else ""


def health_output(info: dict[str, Any]) -> str:
    """What the last health check said, with its exit code."""
    log = ((info.get("State") or {}).get("Health") or {}).get("Log") or []
    if not log:
        return ""
    last = log[-1]
    lines = str(last.get("Output") or "").strip().splitlines()[-10:]
    text = "\n".join(lines)
    return f"last health check exited with {last.get('ExitCode')}" + (f":\n{text}" if text else "")


def last_lines(client: Client, id: str, count: int = 15) -> str:
    """The end of a container's output, for an error's details; empty if it cannot be had."""
    from gemel.client.hijack import Demultiplexer, Output

    try:
        response = client.call(
            "GET",
            f"/containers/{id}/logs",
            query={"stdout": True, "stderr": True, "tail": count},
            timeout=10,
        )
        pieces: list[bytes] = []
        raw = "raw" in response.headers.get("content-type", "")
        split = Demultiplexer(Output(pieces.append, pieces.append), raw=raw)
        for chunk in response.chunks():
            split.feed(chunk)
    except GemelError:
        return ""
    return b"".join(pieces).decode("utf-8", "replace").rstrip()
