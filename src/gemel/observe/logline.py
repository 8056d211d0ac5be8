"""One record of a log, in the format of Kubernetes' CRI. Pure."""

from __future__ import annotations

import calendar
import time
from typing import NamedTuple


class LogLine(NamedTuple):
    """A piece of output. stream: 1 or 2; data: with its newline, unless it is partial."""

    stream: int
    time_ns: int
    data: bytes


_seconds: dict[bytes, int] = {}


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with any fraction; -1 if it is none."""
    head = text[:19]
    seconds = _seconds.get(head)
    try:
        if seconds is None:
            seconds = calendar.timegm(time.strptime(head.decode("ascii"), "%Y-%m-%dT%H:%M:%S"))
            if len(_seconds) > 4096:
                _seconds.clear()
            _seconds[head] = seconds
        if len(text) == 35 and text.endswith(b"+00:00"):
            return seconds * 1_000_000_000 + int(text[20:29])
        return seconds * 1_000_000_000 + _rest(text[19:])
    except ValueError:
        return -1


def _rest(text: bytes) -> int:
    """Nanoseconds of a fraction and a zone: ``.123+01:00``, ``Z``."""
    fraction, zone = text, b""
    for mark in (b"Z", b"+", b"-"):
        if mark in text:
            at = text.index(mark)
            fraction, zone = text[:at], text[at:]
            break
    nanoseconds = int(fraction[1:10].ljust(9, b"0")) if fraction else 0
    if len(zone) == 6:
        minutes = int(zone[1:3]) * 60 + int(zone[4:6])
        offset = minutes * 60_000_000_000
        nanoseconds += offset if zone[:1] == b"-" else -offset
    return nanoseconds


_CONMON = (b"+00:00 stdout ", b"+00:00 stderr ")


def parse(data: bytes) -> list[LogLine]:
    """Lines of the log in ``data``, which ends with a newline.

    What is no line of the format (torn by a crash) comes as standard output.
    """
    found: list[LogLine] = []
    last_time = 0
    second, start = b"", 0
    for raw in data.split(b"\n")[:-1]:
        # conmon writes all lines in one width, most of them in the same second as
        # the line before: told apart by place, this is three times as fast
        regular = raw[29:43] in _CONMON and raw[44:45] == b" "
        if regular and raw[:19] == second:
            nanoseconds = raw[20:29]
            if nanoseconds.isdigit():
                last_time = start + int(nanoseconds)
                text = raw[45:] if raw[43:44] == b"P" else raw[45:] + b"\n"
                found.append(LogLine(1 if raw[39:40] == b"o" else 2, last_time, text))
                continue
        parts = raw.split(b" ", 3)
        if len(parts) == 4 and parts[1] in (b"stdout", b"stderr"):
            moment = parse_time(parts[0])
            if moment >= 0:
                last_time = moment
                if regular:
                    second, start = raw[:19], moment - moment % 1_000_000_000
                text = parts[3] if parts[2][:1] == b"P" else parts[3] + b"\n"
                found.append(LogLine(1 if parts[1] == b"stdout" else 2, moment, text))
                continue
        found.append(LogLine(1, last_time, raw + b"\n"))
    return found
