"""What a line of a log says: its level and fields, as services write them. Pure.

Recognised: JSON objects, logfmt (``level=warn``), and in text a word in capitals or brackets near
the beginning (``WARN``, ``[error]``, ``INFO:``), klog's letter (``E1128 …``), syslog's ``<3>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gemel.errors import InvalidInput

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
_NAMES = {
    "trace": 0, "verbose": 0, "finest": 0, "finer": 0, "debug": 1, "fine": 1, "dbg": 1,
    "info": 2, "information": 2, "notice": 2, "log": 2, "inf": 2, "config": 2,
    "warn": 3, "warning": 3, "wrn": 3, "error": 4, "err": 4, "severe": 4, "fail": 4,
    "fatal": 5, "critical": 5, "crit": 5, "panic": 5, "alert": 5, "emerg": 5, "emergency": 5,
    "ftl": 5, "exception": 4,
}  # fmt: skip
_KEYS = ("level", "lvl", "severity", "log.level", "levelname", "loglevel", "@l", "severity_text",
         "severityText", "severity_number", "severityNumber")  # fmt: skip
_SYSLOG = (5, 5, 5, 4, 3, 2, 2, 1)
_WORDS = "|".join(sorted(_NAMES, key=len, reverse=True))
_LOGFMT = re.compile(r"(?:^|\s)(?:level|lvl|severity)=\"?([A-Za-z]+)")
_BRACKETS = re.compile(rf"[\[(<|]\s*({_WORDS})\s*[\])>|]", re.IGNORECASE)
_CAPITALS = re.compile(rf"(?<![\w-])({_WORDS.upper()})(?![\w-])")
_KLOG = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d")
_PRIORITY = re.compile(r"<(\d{1,3})>")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: How far into a line a level is looked for.
_NEAR = 160
_PAIR = re.compile(r"([\w.@/-]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s\"]*)")


def fields(text: str) -> dict[str, Any] | None:
    """The object that a line is, or its pairs of logfmt; None for plain text."""
    stripped = text.strip()
    if stripped.startswith("{") and stripped.endswith("}"):
        try:
            found = json.loads(stripped)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
    pairs = _PAIR.findall(stripped[:8192])
    if len(pairs) >= 2 and stripped.startswith(f"{pairs[0][0]}="):
        return {key: value.strip('"') for key, value in pairs}
    return None


def level_of(text: str, found: dict[str, Any] | None = None) -> int | None:
    """A place in LEVELS; None where a line names no level."""
    if found is not None:
        for key in _KEYS:
            value = found[key] if key in found else field(found, key)
            if value is not None and (level := _level(value)) is not None:
                return level
        return None
    start = _ANSI.sub("", text[:_NEAR])
    for pattern in (_LOGFMT, _BRACKETS, _CAPITALS):
        if (matched := pattern.search(start)) and matched[1].lower() in _NAMES:
            return _NAMES[matched[1].lower()]
    if matched := _KLOG.match(start):
        return {"I": 2, "W": 3, "E": 4, "F": 5}[matched[1]]
    if matched := _PRIORITY.match(start):
        return _SYSLOG[int(matched[1]) & 7]
    return None


def _level(value: Any) -> int | None:
    if isinstance(value, str) and not value.isdigit():
        return _NAMES.get(value.strip().lower())
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    if number >= 10 and number % 10 == 0:  # bunyan, pino, Python
        return min(5, number // 10 - 1)
    return min(5, (number - 1) // 4) if 1 <= number <= 24 else None  # OpenTelemetry


def field(found: dict[str, Any], path: str) -> Any:
    """A member of an object, or of one within (``a.b``); None without it."""
    if path in found:
        return found[path]
    value: Any = found
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


class Filter(NamedTuple):
    """Which lines are wanted. wanted: members and their values; None: any value."""

    grep: re.Pattern[str] | None = None
    level: int | None = None
    wanted: tuple[tuple[str, str | None], ...] = ()

    @property
    def any(self) -> bool:
        """Whether every line is wanted."""
        return self.grep is None and self.level is None and not self.wanted


def parse(grep: str, ignore_case: bool, level: str, members: Sequence[str]) -> Filter:
    """From what a person wrote. Raises InvalidInput."""
    try:
        pattern = re.compile(grep, re.IGNORECASE if ignore_case else 0) if grep else None
    except re.error as error:
        raise InvalidInput(f"`{grep}` is no regular expression", details=str(error)) from None
    least = None
    if level:
        least = _NAMES.get(level.lower())
        if least is None:
            raise InvalidInput(f"`{level}` is no level", resolution=f"one of {', '.join(LEVELS)}")
    pairs = []
    for member in members:
        key, sep, value = member.partition("=")
        if not key:
            raise InvalidInput(
                f"`{member}` names no field", resolution="--json-field key=value, or key alone"
            )
        pairs.append((key, value if sep else None))
    return Filter(pattern, least, tuple(pairs))


class Sieve:
    """Applies a filter to the lines of one log, one after the other.

    A line that begins with a blank, after one with a level, goes on with that one (a traceback).
    """

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._passed = False
        self.level: int | None = None
        """Of the last line."""

    def wants(self, text: str) -> bool:
        """Whether the next line is wanted."""
        wanted = self._wanted
        if wanted.level is not None or wanted.wanted:
            found = fields(text)
            level = level_of(text, found)
            if level is None and found is None and text[:1] in (" ", "\t"):
                level = self.level
                if not self._passed:
                    return False
            else:
                self.level = level
                self._passed = (
                    wanted.level is None or (level is not None and level >= wanted.level)
                ) and _has(found, wanted.wanted)
            if not self._passed:
                return False
        return wanted.grep is None or wanted.grep.search(text) is not None


def _has(found: dict[str, Any] | None, wanted: Sequence[tuple[str, str | None]]) -> bool:
    if not wanted:
        return True
    if found is None:
        return False
    for key, value in wanted:
        there = field(found, key)
        if there is None or (value is not None and _written(there) != value):
            return False
    return True


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
