"""What differs between the answer that was recorded and the one of now. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

#: Headers that differ from one answer to the next by nature (RFC 9110 and what is usual).
IGNORED = frozenset(
    (
        "date", "age", "expires", "last-modified", "connection", "keep-alive",
        "transfer-encoding", "content-length", "x-request-id", "x-correlation-id",
        "traceparent", "tracestate", "server-timing", "x-runtime",
    )
)  # fmt: skip
#: What stands in a recording for a secret.
MASKED = "***"
_SHORT = 60


class Answer(NamedTuple):
    """An answer. cut: not all of the body is here."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cut: bool = False


def differences(
    before: Answer,
    now: Answer,
    ignored_headers: Collection[str] = (),
    ignored_fields: Collection[str] = (),
) -> list[str]:
    """In words, one a line; nothing if they agree. Fields: names, or paths as they are shown."""
    found = []
    if before.status != now.status:
        found.append(f"status: {before.status} → {now.status}")
    found += _headers(before, now, {name.lower() for name in ignored_headers} | IGNORED)
    found += _bodies(before, now, frozenset(ignored_fields))
    return found


def _headers(before: Answer, now: Answer, ignored: Collection[str]) -> Iterator[str]:
    old, new = _merged(before.headers, ignored), _merged(now.headers, ignored)
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield f"header {name}: {_short(old[name])} → gone"
        elif name not in old:
            yield f"header {name}: new: {_short(new[name])}"
        elif old[name] != new[name] and MASKED not in old[name]:
            yield f"header {name}: {_short(old[name])} → {_short(new[name])}"


def _merged(headers: list[tuple[str, str]], ignored: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key not in ignored:
            found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _bodies(before: Answer, now: Answer, ignored: Collection[str]) -> Iterator[str]:
    if before.body == now.body:
        return
    if before.cut:
        if not now.body.startswith(before.body):
            yield "body: differs in the part that was recorded"
        return
    try:
        old, new = json.loads(before.body), json.loads(now.body)
    except (ValueError, RecursionError):
        if MASKED.encode() not in before.body:
            yield f"body: {len(before.body)} bytes → {len(now.body)} bytes, {_first(before, now)}"
        return
    yield from _values("$", old, new, ignored)


def _first(before: Answer, now: Answer) -> str:
    both = zip(before.body, now.body, strict=False)
    at = next((n for n, (a, b) in enumerate(both) if a != b), min(len(before.body), len(now.body)))
    return f"the first difference at byte {at}"


def _values(path: str, old: Any, new: Any, ignored: Collection[str]) -> Iterator[str]:
    name = path.rpartition(".")[2].partition("[")[0]
    if path in ignored or name in ignored:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{path}.{key}"
            if key not in new:
                if below not in ignored and key not in ignored:
                    yield f"{below}: {_short(old[key])} → gone"
            elif key not in old:
                if below not in ignored and key not in ignored:
                    yield f"{below}: new: {_short(new[key])}"
            else:
                yield from _values(below, old[key], new[key], ignored)
    elif isinstance(old, list) and isinstance(new, list):
        for n, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from _values(f"{path}[{n}]", one, other, ignored)
        if len(old) != len(new):
            yield f"{path}: {len(old)} entries → {len(new)} entries"
    elif (old != new or type(old) is not type(new)) and old != MASKED:
        yield f"{path}: {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
