"""Texts that stand for quantities: sizes, durations, ports, volumes, command lines."""

from __future__ import annotations

import re
from typing import Any

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]*\.?[0-9]+|[0-9]+\.)(ns|us|µs|μs|ms|s|m|h|d|w)")
_NANOS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
    "w": 7 * 86400 * 10**9,
}


def size(value: Any) -> int:
    """Bytes of ``512m``, ``1.5GiB``, ``1048576``, ``-1``. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    text = str(value).strip()
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a size (as 512m, 1.5g or 1048576)')
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def duration(value: Any) -> int:
    """Nanoseconds of ``1m30s``, ``1.5h``, ``10ms``, ``1d``. Raises ValueError."""
    text = str(value).strip()
    body = text.lstrip("+-")
    if body == "0":
        return 0
    at, total = 0, 0.0
    while at < len(body):
        match = _DURATION.match(body, at)
        if match is None:
            break
        total += float(match[1]) * _NANOS[match[2]]
        at = match.end()
    if not body or at < len(body):
        raise ValueError(f'"{text}" is not a duration (as 10s, 1m30s or 500ms)')
    return round(-total if text.startswith("-") else total)


def go_duration(nanoseconds: int) -> str:
    """As Go prints a duration: ``1m30s``, ``500ms``, ``0s``."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < 10**9:
        for unit, scale in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if left >= scale:
                return sign + _fraction(left, scale) + unit
    hours, rest = divmod(left, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    out = f"{hours}h" if hours else ""
    out += f"{minutes}m" if hours or minutes else ""
    return f"{sign}{out}{_fraction(rest, 10**9)}s"


def _fraction(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def text_of(value: Any) -> str:
    """A scalar as Go's ``%v`` prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    return "" if value is None else str(value)


def go_float(value: float) -> str:
    """A number as Go's ``%v`` prints a float64."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    exponent = int(f"{value:e}".split("e")[1])
    if -4 <= exponent < 6:
        return str(int(value)) if value.is_integer() else repr(value)
    digits = "".join(c for c in repr(value).split("e")[0] if c.isdigit()).strip("0") or "0"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{fraction}e{exponent:+03d}"


def command(text: str) -> list[str]:
    """A command line split as a POSIX shell does, without expansions. Raises ValueError."""
    import shlex

    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError as error:
        raise ValueError(f"cannot split the command: {error}") from error


_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.%]*\]|[^:]*):(?=[^:]*:))?"
    r"(?:(?P<host>[0-9]*(?:-[0-9]+)?):)?"
    r"(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>[a-zA-Z]+))?"
)


def ports(text: str) -> list[dict[str, Any]]:
    """The canonical entries of ``[ip:][host[-end]:]target[-end][/protocol]``. Raises ValueError."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a port ([address:][published:]target[/protocol])')
    protocol = (match["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f'"{text}": the protocol must be tcp, udp or sctp')
    targets = _range(text, match["target"])
    host = match["host"] or ""
    published = _range(text, host) if host else range(0)
    if len(targets) > 1 and published and len(published) != len(targets):
        raise ValueError(f'"{text}": the two ranges of ports differ in length')
    made = []
    for index, target in enumerate(targets):
        entry: dict[str, Any] = {"mode": "ingress"}
        if match["ip"]:
            entry["host_ip"] = address(match["ip"].strip("[]"))
        entry["target"] = target
        if published:
            one = str(published[index]) if len(targets) > 1 else host
            entry["published"] = one if len(published) > 1 or len(targets) > 1 else str(int(host))
        entry["protocol"] = protocol
        made.append(entry)
    return made


def _range(text: str, part: str) -> range:
    first, dash, last = part.partition("-")
    low, high = int(first or 0), int(last if dash else first or 0)
    if max(low, high) > 65535:
        raise ValueError(f'"{text}": there is no port {max(low, high)}; the last one is 65535')
    if high < low:
        raise ValueError(f'"{text}": the range {part} ends before it begins')
    return range(low, high + 1)


def address(text: str) -> str:
    """An IP address as it is. Raises ValueError if it is none."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None
    return text


_PROPAGATION = frozenset(["rprivate", "private", "rshared", "shared", "rslave", "slave"])


def volume(text: str) -> dict[str, Any]:
    """The canonical entry of ``[source:]target[:options]``. Raises ValueError."""
    if not text:
        raise ValueError("a volume cannot be empty")
    parts = _volume_parts(text)
    if any(not part for part in parts):
        where = "before the first colon" if not parts[0] else "after a colon"
        raise ValueError(f'"{text}": nothing {where} (source:target:options)')
    if len(parts) > 3:
        raise ValueError(f'"{text}": too many colons (source:target:options)')
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    bind = is_path(source)
    entry: dict[str, Any] = {"type": "bind" if bind else "volume"}
    if source:
        entry["source"] = source
    entry["target"] = clean(target)
    more: dict[str, Any] = {"create_host_path": True} if bind else {}
    marks: dict[str, Any] = {}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        _volume_option(option, entry, more, marks)
    if bind:
        entry["bind"] = {**more, **marks}
        return entry
    if marks:
        entry["bind"] = marks
    entry["volume"] = more
    return entry


def _volume_option(
    option: str, entry: dict[str, Any], more: dict[str, Any], marks: dict[str, Any]
) -> None:
    if option == "ro":
        entry["read_only"] = True
    elif option == "rw":
        entry.pop("read_only", None)
    elif option == "nocopy":
        if entry["type"] == "volume":
            more["nocopy"] = True
    elif option in _PROPAGATION:
        marks["propagation"] = option
    elif option in ("z", "Z"):
        marks["selinux"] = option


def _volume_parts(text: str) -> list[str]:
    """Splits at colons, but for those of ``${…}`` and of a Windows drive."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        elif char == ":" and not depth:
            if index - start == 1 and text[start].isalpha() and len(text) > 2:
                continue
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def is_path(source: str) -> bool:
    """Whether a volume's source is a path of the host rather than a volume's name."""
    if source[:1] in (".", "/", "~") and source:
        return True
    return source.startswith("\\\\") or (len(source) > 1 and source[1] == ":")


def clean(path: str) -> str:
    """A path without ``.``, ``..``, doubled and trailing slashes, as Go's path.Clean."""
    import posixpath

    made = posixpath.normpath(path)
    return made[1:] if made.startswith("//") else made
