"""Numbers, times and ports as Docker's commands write them."""

from __future__ import annotations

import calendar
import re
import time
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip


def decimal_size(count: float) -> str:
    """Bytes in steps of 1000, four digits: ``1.23GB``."""
    return _scaled(float(count), 1000.0, _UNITS, "{:.4g}")


def binary_size(count: float) -> str:
    """Bytes in steps of 1024, four digits: ``12.5MiB``."""
    return _scaled(float(count), 1024.0, _BINARY, "{:.4g}")


def _scaled(count: float, step: float, units: tuple[str, ...], form: str) -> str:
    index = 0
    while count >= step and index < len(units) - 1:
        count /= step
        index += 1
    return form.format(count) + units[index]


def parse_size(text: str) -> int:
    """``512m``, ``1.5g``, ``64kb``, ``1024`` as bytes. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"`{text}` is no size; examples: 64m, 1.5g")
    power = " kmgtp".index(match[2].lower() or " ")
    return int(float(match[1]) * 1024**power)


def parse_span(text: str) -> float:
    """``1m30s``, ``500ms``, ``10`` (seconds) as seconds. Raises ValueError."""
    text = text.strip()
    if text.replace(".", "", 1).isdigit():
        return float(text)
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"`{text}` is no duration; examples: 10s, 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def nanoseconds(text: str) -> int:
    """A duration as the API wants it."""
    return round(parse_span(text) * 1e9)


def ago(seconds: float) -> str:
    """A span in words, as ``docker ps`` has it: ``About a minute``, ``3 hours``."""
    seconds = max(0, int(seconds))
    minutes, hours = seconds // 60, round(seconds / 3600)
    steps = (
        (1, "Less than a second"),
        (2, "1 second"),
        (60, f"{seconds} seconds"),
        (120, "About a minute"),
        (3600, f"{minutes} minutes"),
        (5400, "About an hour"),
        (48 * 3600, f"{hours} hours"),
        (14 * 86400, f"{seconds // 86400} days"),
        (60 * 86400, f"{seconds // (7 * 86400)} weeks"),
        (730 * 86400, f"{seconds // (30 * 86400)} months"),
    )
    for limit, words in steps:
        if seconds < limit:
            return words
    return f"{seconds // (365 * 86400)} years"


def epoch(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 for none."""
    match = re.match(
        r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?$", stamp
    )
    if not match or match[1] == "0001":
        return 0.0
    whole = calendar.timegm(tuple(int(match[i]) for i in range(1, 7)) + (0, 0, 0))
    offset = 0
    zone = match[8] or "Z"
    if zone != "Z":
        offset = (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60) * (-1 if zone[0] == "-" else 1)
    return whole - offset + float(match[7] or 0)


def since(text: str, now: float | None = None) -> str:
    """A ``--since``/``--until`` value for the API: seconds, from a time or a span before now.

    Takes RFC 3339, a date, seconds since the epoch, or a duration (``10m``).
    Raises ValueError.
    """
    if not text:
        return ""
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        return text
    for form in (text, text + "Z", text + ":00Z", text + "T00:00:00Z"):
        if (stamp := epoch(form)) > 0:
            return f"{stamp:.9f}"
    current = time.time() if now is None else now
    return f"{current - parse_span(text):.9f}"


def ports(bindings: list[dict[str, Any]]) -> str:
    """The ports of a container in one cell: ``127.0.0.1:8080->80/tcp, 9000/tcp``."""
    cells: list[str] = []
    for port in sorted(
        bindings, key=lambda p: (p.get("PrivatePort", 0), p.get("Type", ""), p.get("IP", ""))
    ):
        inner = f"{port.get('PrivatePort')}/{port.get('Type', 'tcp')}"
        if port.get("PublicPort"):
            ip = str(port.get("IP") or "0.0.0.0")
            ip = f"[{ip}]" if ":" in ip else ip
            inner = f"{ip}:{port['PublicPort']}->{inner}"
        if inner not in cells:
            cells.append(inner)
    return ", ".join(cells)


def short_id(id: str) -> str:
    """The first 12 digits of an id, without ``sha256:``."""
    return id.removeprefix("sha256:")[:12]
