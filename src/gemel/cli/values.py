"""Values of options, from Docker's spellings to the API's shapes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from gemel.cli import text
from gemel.errors import InvalidInput

Json = dict[str, Any]


def environment(pairs: Sequence[str], files: Sequence[str]) -> list[str]:
    """``KEY=value`` entries; ``KEY`` alone takes the caller's value, or is left out without one.

    Later ones win, and -e wins over files. Raises InvalidInput.
    """
    merged: dict[str, str] = {}
    for path in files:
        for entry in _env_file(path):
            _add(merged, entry)
    for entry in pairs:
        _add(merged, entry)
    return [f"{key}={value}" for key, value in merged.items()]


def _add(merged: dict[str, str], entry: str) -> None:
    key, found, value = entry.partition("=")
    if not key or any(c.isspace() for c in key):
        raise InvalidInput(f"invalid environment variable: {entry!r}")
    if found:
        merged[key] = value
    elif key in os.environ:
        merged[key] = os.environ[key]


def _env_file(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read the environment file {path}", details=str(error)
        ) from error
    stripped = (line.lstrip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def labels(pairs: Sequence[str]) -> dict[str, str]:
    """``KEY=value``, or ``KEY`` for an empty value."""
    return {key: value for key, _, value in (entry.partition("=") for entry in pairs)}


def published(specs: Sequence[str]) -> tuple[Json, Json]:
    """ExposedPorts and PortBindings of ``[IP:][HOST[-END]:]INNER[-END][/PROTO]``."""
    exposed: Json = {}
    bindings: Json = {}
    for spec in specs:
        for inner, binding in _ports(spec):
            exposed[inner] = {}
            bindings.setdefault(inner, []).append(binding)
    return exposed, bindings


_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}|localhost):)?(?:(?P<host>\d*(?:-\d+)?):)?"
    r"(?P<inner>\d+(?:-\d+)?)(?:/(?P<proto>tcp|udp|sctp))?"
)


def _ports(spec: str) -> list[tuple[str, Json]]:
    match = _PORT.fullmatch(spec)
    if not match:
        raise InvalidInput(
            f"`{spec}` is no port to publish",
            resolution="examples: 8080:80, 127.0.0.1:8080:80, 5353:53/udp, 8000-8010:8000-8010",
        )
    ip = (match["ip"] or "").strip("[]")
    ip = "127.0.0.1" if ip == "localhost" else ip
    inner = _span(match["inner"], spec)
    host = _span(match["host"], spec) if match["host"] else []
    proto = match["proto"] or "tcp"
    if host and len(host) != len(inner):
        if len(inner) != 1:
            raise InvalidInput(f"`{spec}`: the two ranges of ports differ in length")
        joined = f"{host[0]}-{host[-1]}"
        return [(f"{inner[0]}/{proto}", {"HostIp": ip, "HostPort": joined})]
    return [
        (f"{port}/{proto}", {"HostIp": ip, "HostPort": str(host[i]) if host else ""})
        for i, port in enumerate(inner)
    ]


def _span(part: str, spec: str) -> list[int]:
    first, _, last = part.partition("-")
    begin, end = int(first), int(last or first)
    if not (0 < begin <= end < 65536):
        raise InvalidInput(f"`{spec}`: ports go from 1 to 65535")
    return list(range(begin, end + 1))


def mount(spec: str) -> Json:
    """An entry of HostConfig.Mounts from ``type=bind,source=/a,target=/b,readonly``."""
    fields: dict[str, str] = {}
    for part in spec.split(","):
        key, found, value = part.partition("=")
        fields[key.strip().lower()] = value if found else "true"
    kind = fields.pop("type", "volume")
    source = fields.pop("source", fields.pop("src", ""))
    target = fields.pop("target", fields.pop("dst", fields.pop("destination", "")))
    if not target:
        raise InvalidInput(f"`{spec}`: a mount needs a target", resolution=_MOUNT_HELP)
    readonly = fields.pop("readonly", fields.pop("ro", "false")).lower() in ("true", "1")
    if kind == "bind":
        source = os.path.abspath(source)
    out: Json = {"Type": kind, "Source": source, "Target": target, "ReadOnly": readonly}
    if kind == "tmpfs":
        options: Json = {}
        if "tmpfs-size" in fields:
            options["SizeBytes"] = _size(fields.pop("tmpfs-size"))
        if "tmpfs-mode" in fields:
            options["Mode"] = int(fields.pop("tmpfs-mode"), 8)
        out["TmpfsOptions"] = options
    if "volume-nocopy" in fields:
        out["VolumeOptions"] = {"NoCopy": fields.pop("volume-nocopy") in ("true", "1")}
    if "bind-propagation" in fields:
        out["BindOptions"] = {"Propagation": fields.pop("bind-propagation")}
    fields.pop("consistency", None)
    if fields:
        raise InvalidInput(f"`{spec}`: unknown: {', '.join(fields)}", resolution=_MOUNT_HELP)
    return out


_MOUNT_HELP = "example: --mount type=bind,source=/data,target=/data,readonly"


def bind(spec: str) -> tuple[str, str]:
    """A ``-v`` value: a bind with an absolute source, or an anonymous volume's target (second)."""
    parts = spec.split(":")
    if len(parts) == 1:
        return "", spec
    source, target = parts[0], parts[1]
    if len(parts) > 3 or not target.startswith("/"):
        raise InvalidInput(
            f"`{spec}` is no volume", resolution="examples: ./src:/app, data:/var/lib/data:ro"
        )
    if source.startswith((".", "/", "~")):
        source = os.path.abspath(os.path.expanduser(source))
    return ":".join([source, target, *parts[2:]]), ""


def ulimit(spec: str) -> Json:
    """``nofile=1024:2048`` as the API has it."""
    name, found, value = spec.partition("=")
    soft, _, hard = value.partition(":")
    try:
        if not found:
            raise ValueError
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise InvalidInput(
            f"`{spec}` is no limit", resolution="example: nofile=1024:2048"
        ) from None


def restart(spec: str) -> Json:
    """``on-failure:3`` as a RestartPolicy."""
    name, _, count = spec.partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure") or (
        count and not count.isdigit()
    ):
        raise InvalidInput(
            f"`{spec}` is no restart policy",
            resolution="one of: no, always, unless-stopped, on-failure[:MAX]",
        )
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def tmpfs(specs: Sequence[str]) -> dict[str, str]:
    """``/run:size=64m`` as path → options."""
    return {path: options for path, _, options in (spec.partition(":") for spec in specs)}


def device(spec: str) -> Json:
    """``/dev/a[:/dev/b[:rwm]]``."""
    source, *rest = spec.split(":")
    target = rest[0] if rest else source
    permissions = rest[1] if len(rest) > 1 else "rwm"
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def size(spec: str) -> int:
    """Bytes of ``512m``. Raises InvalidInput."""
    return _size(spec)


def _size(spec: str) -> int:
    try:
        return text.parse_size(spec)
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def span(spec: str) -> int:
    """Nanoseconds of ``1m30s``. Raises InvalidInput."""
    try:
        return text.nanoseconds(spec)
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def moment(spec: str) -> str:
    """A --since or --until value. Raises InvalidInput."""
    try:
        return text.since(spec)
    except ValueError as error:
        raise InvalidInput(
            str(error), resolution="or a time such as 2026-01-31T12:00:00Z"
        ) from None
