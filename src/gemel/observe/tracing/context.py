"""Which trace a call says it belongs to: traceparent, b3, X-Request-Id. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_B3 = re.compile(r"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-[01d](?:-[0-9a-f]{16})?)?")
_B3_TRACE = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}")
_SPAN = re.compile(r"[0-9a-f]{16}")
#: Longest request id that is taken as one.
LONGEST = 128
_REQUEST_IDS = ("x-request-id", "x-correlation-id")
NAMES = frozenset(("traceparent", "b3", "x-b3-traceid", "x-b3-spanid", *_REQUEST_IDS))


class Context(NamedTuple):
    """trace: 32 hexadecimal digits or empty; parent: id of the span that made the call."""

    trace: str = ""
    parent: str = ""
    request: str = ""


NONE = Context()


def of(headers: Iterable[tuple[str, str]]) -> Context:
    """What the headers of a request say; what is malformed counts as absent."""
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in NAMES:
            found.setdefault(lower, value.strip())
    if not found:
        return NONE
    request = next((found[name] for name in _REQUEST_IDS if found.get(name)), "")
    trace, parent = _trace(found)
    return Context(trace, parent, request if len(request) <= LONGEST else "")


def _trace(found: dict[str, str]) -> tuple[str, str]:
    matched = _TRACEPARENT.fullmatch(found.get("traceparent", ""))
    if matched and _real(matched[1], matched[2]):
        return matched[1], matched[2]
    matched = _B3.fullmatch(found.get("b3", "").lower())
    if matched and _real(matched[1], matched[2]):
        return matched[1].zfill(32), matched[2]
    trace, span = found.get("x-b3-traceid", "").lower(), found.get("x-b3-spanid", "").lower()
    if _B3_TRACE.fullmatch(trace) and _SPAN.fullmatch(span) and _real(trace, span):
        return trace.zfill(32), span
    return "", ""


def _real(trace: str, span: str) -> bool:
    return trace.strip("0") != "" and span.strip("0") != ""
