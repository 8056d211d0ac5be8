"""Why an instance is as it is: its records, its log and its calls, in a few lines."""

from __future__ import annotations

import signal
import time
from typing import Any

import msgspec

from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.engine.records import Container, parse_stamp
from gemel.model.docker import HostConfig, RestartPolicy
from gemel.observe import logs
from gemel.observe.capture.records import Exchange, Query
from gemel.observe.traffic import Traffic

LINES, CALLS, EVENTS = 8, 5, 8
_LINE = 400

#: What a signal mostly means, in words for who has not looked into it before.
_SIGNALS = {
    "SIGKILL": "killed by force: by somebody's kill -9, after a stop that took too long, "
    "or by the kernel for want of memory",
    "SIGTERM": "asked to end, and it did not handle that itself",
    "SIGINT": "interrupted, as by Ctrl-C",
    "SIGSEGV": "it used memory that is not its own: a bug in native code",
    "SIGABRT": "it ended itself on purpose: a failed assertion, a panic, a corrupted heap",
    "SIGBUS": "it used memory that is not there: a truncated file, or a full /dev/shm",
    "SIGILL": "an instruction that this CPU does not have: an image for another CPU?",
    "SIGFPE": "an arithmetic error, such as a division by zero",
    "SIGPIPE": "it wrote to a connection that the other side had closed",
    "SIGSYS": "a system call that its seccomp profile forbids",
    "SIGHUP": "its terminal was closed, and it did not handle that",
}


def exit_words(one: Container) -> str:
    """What an exit status means."""
    state = one.state
    if state.oom:
        limit = (one.request.host_config or HostConfig()).memory or 0
        at = f" of {limit >> 20} MiB" if limit else ""
        return f"the kernel ended it (SIGKILL): it had used up its memory limit{at}"
    code = state.exit_code
    if code == 0:
        return "it ended by itself, without an error"
    if code == 125:
        return "it could not be started"
    if code == 126:
        return "its command is there but cannot be run: not executable, or a folder"
    if code == 127:
        return "its command is not in the image, or a shell in it did not find one"
    name = _signal(code - 128)
    if name:
        asked = " (gemel was told to stop it)" if state.stopped_by_user else ""
        return f"{name}{asked}: {_SIGNALS.get(name, 'ended by a signal')}"
    return "the program's own status: its log should say more"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def headline(one: Container, now: float) -> str:
    """The state in one sentence."""
    state = one.state
    begun, ended = parse_stamp(state.started_at), parse_stamp(state.finished_at)
    if state.status == "created":
        return f"was not started yet{': ' + state.error if state.error else ''}"
    if state.running:
        text = f"{state.status} for {span(now - begun)}"
        return text + (f", {state.health}" if state.health else "")
    ran = f" after {span(ended - begun)}" if 0 < begun <= ended else ""
    ago = f", {span(now - ended)} ago" if ended else ""
    return f"{state.status}: ended with status {state.exit_code}{ran}{ago}"


def span(seconds: float) -> str:
    """``3.2 s``, ``5 min``, ``2 h``, ``4 days``."""
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def reasons(one: Container) -> list[str]:
    """What explains the state, most telling first."""
    state = one.state
    found: list[str] = []
    if state.error:
        found.append(state.error)
    if not state.running and state.status != "created" and not state.error:
        found.append(exit_words(one))
    if state.health in ("unhealthy", "starting") or state.failing_streak:
        found.append(_health(one))
    policy = (one.request.host_config or HostConfig()).restart_policy or RestartPolicy()
    if state.restarts:
        found.append(f"restarted {state.restarts} times (restart: {policy.name or 'no'})")
    elif state.status == "exited" and policy.name in ("", "no") and state.exit_code:
        found.append("it is not restarted: the service has no restart policy")
    return [text for text in found if text]


def _health(one: Container) -> str:
    state = one.state
    if not state.health_log:
        return "its health check has not run yet" if state.health == "starting" else ""
    last = state.health_log[-1]
    if last["ExitCode"] == 0:
        return ""
    said = " ".join(str(last["Output"]).split())[:_LINE]
    check = " ".join((one.request.healthcheck.test or [])[1:]) if one.request.healthcheck else ""
    times = f"{state.failing_streak} times in a row" if state.failing_streak else "last time"
    return f"its health check failed {times} (`{check[:120]}`): {said or 'it said nothing'}"


async def explain(core: Core, traffic: Traffic, one: Container) -> Json:
    """GET /gemel/containers/{id}/why."""
    return {
        "Id": one.id,
        "Name": one.name,
        "Runtime": one.runtime.value,
        "Headline": headline(one, time.time()),
        "Reasons": reasons(one),
        "Changed": changed(core, one),
        "Log": await _log_tail(core, one),
        "Served": await _calls(traffic, Query(target=one.id, tail=CALLS)),
        "Made": await _calls(traffic, Query(source=one.id, tail=CALLS)),
    }


def changed(core: Core, one: Container) -> list[Json]:
    """What has happened to it of late, health checks that went as before apart."""
    kinds = ("create", "start", "die", "oom", "kill", "stop", "restart", "pause", "unpause")
    found = [
        {
            "Time": event["timeNano"] / 1e9,
            "What": _event(event["Action"], event["Actor"]["Attributes"]),
        }
        for event in core.events.past()
        if event["Actor"]["ID"] == one.id
        and (event["Action"] in kinds or event["Action"].startswith(("health", "update", "rename")))
    ]
    if not found:
        found = [{"Time": parse_stamp(one.created), "What": f"create from {one.image_ref}"}]
    return found[-EVENTS:]


def _event(action: str, attributes: dict[str, Any]) -> str:
    if action == "create":
        return f"create from {attributes.get('image', '')}"
    if action == "die":
        return f"end with status {attributes.get('exitCode', '?')}"
    if action == "kill":
        number = str(attributes.get("signal", ""))
        return f"signal {_signal(int(number)) or number if number.isdigit() else number}"
    return action.replace("_", " ")


async def _log_tail(core: Core, one: Container) -> list[str]:
    path = core.paths.instance(one.id) / "log"
    found = []
    try:
        async for line in logs.read(path, tail=LINES):
            found.append(line.data.decode("utf-8", "replace").rstrip("\n")[:_LINE])
    except OSError:
        return []
    while found and not found[-1].strip():
        found.pop()
    return found


async def _calls(traffic: Traffic, query: Query) -> list[Json]:
    if not traffic.on:
        return []
    return [
        msgspec.to_builtins(msgspec.json.decode(line, type=Exchange))
        async for line in traffic.lines(query)
    ]
