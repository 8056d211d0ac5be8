"""How a container is shown: Docker's JSON for list and inspect. Pure."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gemel.engine.core import Core
from gemel.engine.facade import Json
from gemel.engine.records import Container, EndpointRecord, MountPoint, parse_stamp
from gemel.model.docker import EndpointSettings, HostConfig


def status_text(one: Container) -> str:
    """``Up 5 minutes (healthy)``, ``Exited (0) 2 hours ago``: as docker ps has it."""
    state = one.state
    if state.status == "created":
        return "Created"
    if state.status in ("removing", "dead"):
        return "Removal In Progress" if state.status == "removing" else "Dead"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {_ago(state.finished_at)} ago"
    if state.status == "exited":
        return f"Exited ({state.exit_code}) {_ago(state.finished_at)} ago"
    text = f"Up {_ago(state.started_at)}"
    if state.status == "paused":
        return f"{text} (Paused)"
    if state.health:
        shown = "health: starting" if state.health == "starting" else state.health
        return f"{text} ({shown})"
    return text


def _ago(then: str) -> str:
    seconds = max(0, int(time.time() - parse_stamp(then)))
    for size, name in ((1, "second"), (60, "minute"), (3600, "hour"), (86400, "day")):
        if seconds < size * 120 or name == "day":
            number = seconds // size
            if name == "second" and number < 1:
                return "Less than a second"
            if name == "minute" and number == 1:
                return "About a minute"
            if name == "hour" and number == 1:
                return "About an hour"
            return f"{number} {name}" + ("" if number == 1 else "s")
    return ""


def ports_list(one: Container) -> list[Json]:
    """The Ports of a list entry: published ones, and exposed ones that are not."""
    result: list[Json] = []
    published = set()
    for bound in one.bindings if one.state.running else []:
        published.add(f"{bound.port}/{bound.protocol}")
        result.append(
            {
                "IP": bound.host_ip,
                "PrivatePort": bound.port,
                "PublicPort": bound.host_port,
                "Type": bound.protocol,
            }
        )
    for text in one.request.exposed_ports or {}:
        number, _, protocol = text.partition("/")
        if text not in published and number.isdigit():
            result.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return result


def ports_map(one: Container) -> Json:
    """NetworkSettings.Ports of an inspect."""
    result: dict[str, Any] = {}
    if not one.state.running:
        return result
    for text in one.request.exposed_ports or {}:
        result[text if "/" in text else f"{text}/tcp"] = None
    for bound in one.bindings:
        entry = {"HostIp": bound.host_ip, "HostPort": str(bound.host_port)}
        key = f"{bound.port}/{bound.protocol}"
        result[key] = [*(result.get(key) or []), entry]
    return result


def endpoint(core: Core, one: Container, end: EndpointRecord) -> Json:
    """An entry of NetworkSettings.Networks."""
    network = core.networks.get(end.network_id)
    running = one.state.running
    shown: Json = msgspec.to_builtins(end.settings)
    return shown | {
        "MacAddress": end.mac if running else end.settings.mac_address,
        "NetworkID": end.network_id,
        "EndpointID": end.endpoint_id if running else "",
        "Gateway": network.gateway if network and running and end.address else "",
        "IPAddress": end.address if running else "",
        "IPPrefixLen": int(network.subnet.partition("/")[2]) if network and running else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": [one.name, one.id[:12], *(end.settings.aliases or [])],
    }


def mount(point: MountPoint) -> Json:
    """An entry of Mounts."""
    result: Json = {
        "Type": point.kind,
        "Source": point.source,
        "Destination": point.target,
        "Mode": "ro" if point.readonly else "",
        "RW": not point.readonly,
        "Propagation": "rprivate" if point.kind == "bind" else "",
    }
    if point.kind == "volume":
        result |= {"Name": point.name, "Driver": "local"}
    if point.kind == "image":
        result["Name"] = point.name
    return result


def mounts(one: Container) -> list[Json]:
    """Mounts; as in Docker without those of HostConfig.Tmpfs, which are shown there."""
    own = (one.request.host_config or HostConfig()).tmpfs or {}
    hidden = {target.rstrip("/") for target in own}
    return [mount(p) for p in one.mounts if p.kind != "tmpfs" or p.target not in hidden]


_NO_PLACE = EndpointRecord(
    network_id="", network_name="", settings=EndpointSettings(), endpoint_id=""
)


def _places(core: Core, one: Container, host: HostConfig) -> Json:
    """NetworkSettings.Networks; the host's network, and none, are listed as Docker does."""
    mode = host.network_mode
    if not one.endpoints and mode in ("host", "none"):
        place = endpoint(core, one, _NO_PLACE)
        return {mode: place | {"NetworkID": mode.ljust(64, "0"), "DNSNames": None}}
    return {e.network_name: endpoint(core, one, e) for e in one.endpoints}


def summary(core: Core, one: Container) -> Json:
    """An entry of GET /containers/json."""
    host = one.request.host_config or HostConfig()
    return {
        "Id": one.id,
        "Names": [f"/{one.name}"],
        "Image": one.image_ref,
        "ImageID": one.image_id,
        "Command": " ".join(one.argv),
        "Created": int(parse_stamp(one.created)),
        "Ports": ports_list(one),
        "Labels": one.request.labels or {},
        "State": one.state.status,
        "Status": status_text(one),
        "Health": {"Status": one.state.health or "none"},
        "HostConfig": {"NetworkMode": host.network_mode},
        "NetworkSettings": {
            "Networks": {e.network_name: endpoint(core, one, e) for e in one.endpoints}
        },
        "Mounts": mounts(one),
        "Runtime": one.runtime.value,
        "RuntimeChosen": one.choice is not None,
        "ExitCode": one.state.exit_code,
    }


def state(one: Container) -> Json:
    """The State of an inspect."""
    now = one.state
    shown: Json = {
        "Status": now.status,
        "Running": now.status in ("running", "paused", "restarting"),
        "Paused": now.status == "paused",
        "Restarting": now.status == "restarting",
        "OOMKilled": now.oom,
        "Dead": now.status == "dead",
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": now.started_at,
        "FinishedAt": now.finished_at,
    }
    if now.health:
        shown["Health"] = {
            "Status": now.health,
            "FailingStreak": now.failing_streak,
            "Log": now.health_log,
        }
    return shown


def _boot(core: Core, one: Container) -> tuple[str, str]:
    """How a running micro VM came up, and why it was not cloned; empty for what boots nothing."""
    return core.runtime(one).boot(one.id) if one.state.running else ("", "")


def full(core: Core, one: Container) -> Json:
    """GET /containers/ID/json."""
    request = one.request
    config: Json = msgspec.to_builtins(request)
    config.pop("HostConfig", None)
    config.pop("NetworkingConfig", None)
    config["Hostname"] = request.hostname or one.id[:12]
    config["Image"] = one.image_ref
    if request.healthcheck is None:
        config.pop("Healthcheck", None)
    host: Json = msgspec.to_builtins(request.host_config or HostConfig())
    host["Runtime"] = host["Runtime"] or one.runtime.value
    host.setdefault("RestartPolicy", {"Name": "no", "MaximumRetryCount": 0})
    if host["RestartPolicy"] is None:
        host["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    host["IpcMode"] = host["IpcMode"] or "private"
    log = host["LogConfig"] or {}
    host["LogConfig"] = {"Type": log.get("Type") or "json-file", "Config": log.get("Config") or {}}
    networks = _places(core, one, request.host_config or HostConfig())
    first: Json = next(iter(networks.values()), {})
    folder = core.paths.instance(one.id)
    booted, reason = _boot(core, one)
    return {
        "Id": one.id,
        "Created": one.created,
        "Path": one.argv[0] if one.argv else "",
        "Args": one.argv[1:],
        "State": state(one),
        "Image": one.image_id,
        "ResolvConfPath": str(folder / "files" / "resolv.conf"),
        "HostnamePath": str(folder / "files" / "hostname"),
        "HostsPath": str(folder / "files" / "hosts"),
        "LogPath": str(folder / "log"),
        "Name": f"/{one.name}",
        "RestartCount": one.state.restarts,
        "Driver": "squashfs+overlay",
        "Platform": "linux",
        "Runtime": one.runtime.value,
        "RuntimeChoice": msgspec.to_builtins(one.choice) if one.choice else None,
        "Boot": booted,
        "BootReason": reason,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host,
        "GraphDriver": {"Name": "squashfs+overlay", "Data": None},
        "Mounts": mounts(one),
        "Config": config,
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": one.id if one.state.running else "",
            "SandboxKey": str(core.paths.netns(one.id)) if one.state.running else "",
            "Ports": ports_map(one),
            "EndpointID": first.get("EndpointID", ""),
            "Gateway": first.get("Gateway", ""),
            "IPAddress": first.get("IPAddress", ""),
            "IPPrefixLen": first.get("IPPrefixLen", 0),
            "MacAddress": first.get("MacAddress", ""),
            "Networks": networks,
        },
    }
